package org.nextvit.demo

import android.content.Context
import android.graphics.Bitmap
import com.baidu.paddle.lite.MobileConfig
import com.baidu.paddle.lite.PaddlePredictor
import com.baidu.paddle.lite.PowerMode
import java.io.File

/** The model in the app's assets, run by Paddle Lite. Not for two threads at once. */
class Classifier(context: Context, threads: Int = 4) {
    private val recipe = Recipe(context.assets.open("export.json").bufferedReader().use { it.readText() })
    private val predictor: PaddlePredictor

    init {
        val file = File(context.cacheDir, "inference.nb")           // Paddle Lite reads files, and an asset is none
        context.assets.open("inference.nb").use { asset -> file.outputStream().use { asset.copyTo(it) } }
        val config = MobileConfig()
        config.setModelFromFile(file.path)
        config.setThreads(threads)
        config.setPowerMode(PowerMode.LITE_POWER_HIGH)
        predictor = PaddlePredictor.createPaddlePredictor(config)
            ?: throw IllegalStateException("Paddle Lite cannot load inference.nb: convert it with the version of libpaddle_lite_jni.so")
    }

    /** The best classes of an upright image, best first. */
    fun classify(bitmap: Bitmap): List<Prediction> {
        val pixels = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        val input = recipe.input(pixels, bitmap.width, bitmap.height)
        val tensor = predictor.getInput(0)
        tensor.resize(longArrayOf(1, 3, input.height.toLong(), input.width.toLong()))
        tensor.setData(input.values)
        check(predictor.run()) { "Paddle Lite could not run the model" }
        return recipe.predictions(predictor.getOutput(0).floatData)
    }
}
