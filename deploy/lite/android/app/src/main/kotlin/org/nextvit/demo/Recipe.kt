package org.nextvit.demo

import org.json.JSONArray
import org.json.JSONObject

/** What the network takes: float32 [1, 3, height, width]. */
class Input(val height: Int, val width: Int, val values: FloatArray)

class Prediction(val label: String, val score: Float)

/** Pre- and post-processing, as export.json describes them. IllegalArgumentException for what this app does not know. */
class Recipe(json: String) {
    private val description = JSONObject(json)
    private val model = description.getJSONObject("Model")
    private val topk = description.getJSONObject("PostProcess").getJSONObject("Topk")
    private val labels = topk.getJSONArray("label_list")
    private val softmax = model.getBoolean("softmax")
    private val minSize = model.getJSONObject("input").optInt("min_size", 1)
    private val shape = model.getJSONObject("input").getJSONArray("shape")      // null where any number goes
    private val pillow = description.getJSONObject("Versions").getString("pillow").split(".")
    private val steps = ArrayList<String>()
    private val sizes = ArrayList<Int>()
    private var scale = 1f
    private var mean = floatArrayOf(0f, 0f, 0f)
    private var std = floatArrayOf(1f, 1f, 1f)

    init {
        require(labels.length() == model.getInt("class_num")) { "${labels.length()} names for ${model.getInt("class_num")} classes" }
        require(shape.optInt(0, 1) == 1) { "the model was exported for batches of ${shape.get(0)}; this app has one image" }
        val transforms = description.getJSONObject("PreProcess").getJSONArray("transform_ops")
        var done = false                        // resizing and cropping come before; the export writes every argument out
        for (i in 0 until transforms.length()) {
            val transform = transforms.getJSONObject(i)
            val name = transform.keys().next() as String
            val arguments = transform.optJSONObject(name) ?: JSONObject()
            when (name) {
                "DecodeImage" -> if (!arguments.optBoolean("to_rgb", true)) add("bgr", 0, 0)
                "ResizeImage", "CropImage" -> {
                    require(!done) { "$name after NormalizeImage or ToCHWImage" }
                    addResize(name, arguments)
                }
                "NormalizeImage" -> {
                    scale = arguments.getDouble("scale").toFloat()
                    mean = floats(arguments.getJSONArray("mean"))
                    std = floats(arguments.getJSONArray("std"))
                    done = true
                }
                "ToCHWImage" -> done = true
                else -> throw IllegalArgumentException("unknown transform $name")
            }
        }
    }

    /** The network's input for an image as Bitmap.getPixels gives it. */
    fun input(argb: IntArray, width: Int, height: Int): Input {
        val size = IntArray(2)
        val values = Native.preprocess(
            argb, width, height, steps.toTypedArray(), sizes.toIntArray(), minSize, pillow[0].toInt(), pillow[1].toInt(), scale, mean, std,
            size
        )
        require(shape.optInt(2, size[0]) == size[0] && shape.optInt(3, size[1]) == size[1]) {
            "${size[0]} x ${size[1]} pixels after preprocessing; the model was exported for ${shape.get(2)} x ${shape.get(3)} alone"
        }
        return Input(size[0], size[1], values)
    }

    /** The best classes for the network's output, best first. */
    fun predictions(output: FloatArray): List<Prediction> {
        require(output.size == labels.length()) { "the network gave ${output.size} values for ${labels.length()} names" }
        val scores = if (softmax) output else Native.softmax(output)
        return Native.topK(scores, topk.getInt("topk")).map { Prediction(labels.getString(it), scores[it]) }
    }

    private fun addResize(name: String, arguments: JSONObject) {
        val short = arguments.has("resize_short")
        val size = arguments.get(if (short) "resize_short" else "size")
        val (width, height) = if (size is JSONArray) Pair(size.getInt(0), size.getInt(1)) else Pair(size as Int, size)
        if (name == "CropImage") {
            add("crop", width, height)
        } else {
            require(arguments.getString("backend") == "pil") { "ResizeImage: this app resizes as `backend: pil` does" }
            add(arguments.getString("interpolation"), width, if (short) 0 else height)
        }
    }

    private fun add(step: String, width: Int, height: Int) {
        steps.add(step)
        sizes.add(width)
        sizes.add(height)
    }

    private fun floats(array: JSONArray) = FloatArray(array.length()) { array.getDouble(it).toFloat() }
}
