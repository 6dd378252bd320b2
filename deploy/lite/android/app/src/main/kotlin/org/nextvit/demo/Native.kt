package org.nextvit.demo

/** deploy/cpp's pre- and post-processing; see cpp/native.cc. */
object Native {
    init {
        System.loadLibrary("nextvit")
    }

    /**
     * Pixels as Bitmap.getPixels gives them -> float32 [3, H, W]; resultSize receives H and W.
     *
     * steps: "bgr", "crop" or the name of a filter to resize with, each with a width and a height in sizes; a height of 0 makes the
     * width the shorter side. IllegalArgumentException for an unknown filter, or an image smaller than minSize in the end.
     */
    external fun preprocess(
        argb: IntArray, width: Int, height: Int, steps: Array<String>, sizes: IntArray, minSize: Int, pillowMajor: Int,
        pillowMinor: Int, scale: Float, mean: FloatArray, std: FloatArray, resultSize: IntArray
    ): FloatArray

    external fun softmax(logits: FloatArray): FloatArray

    /** The indices of the k largest scores, best first. */
    external fun topK(scores: FloatArray, k: Int): IntArray
}
