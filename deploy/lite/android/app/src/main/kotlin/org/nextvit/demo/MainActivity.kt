package org.nextvit.demo

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import java.util.concurrent.Executors

/** Pick a photo, see its best classes. */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private val classifier by lazy { Classifier(applicationContext) }       // made in the worker, as it reads the model

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.activity_main)
        findViewById<Button>(R.id.pick).setOnClickListener {
            val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
            startActivityForResult(intent, PICK)
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val uri = data?.data
        if (request == PICK && result == RESULT_OK && uri != null) worker.execute { show(uri) }
    }

    override fun onDestroy() {
        worker.shutdown()
        super.onDestroy()
    }

    private fun show(uri: Uri) {
        val photo = try {
            read(uri)
        } catch (error: Exception) {
            return report(null, "${getString(R.string.unreadable)}\n${error.message}")
        } catch (error: OutOfMemoryError) {
            return report(null, getString(R.string.too_large))
        }
        val text = try {
            val start = SystemClock.elapsedRealtime()
            val lines = classifier.classify(photo).map { "%5.1f %%  %s".format(100 * it.score, it.label) }
            (lines + getString(R.string.took, SystemClock.elapsedRealtime() - start)).joinToString("\n")
        } catch (error: Exception) {
            "${getString(R.string.failed)}\n${error.message}"
        }
        report(photo, text)
    }

    private fun report(photo: Bitmap?, text: String) = runOnUiThread {
        findViewById<ImageView>(R.id.photo).setImageBitmap(photo)
        findViewById<TextView>(R.id.result).text = text
    }

    /** The photo, upright. Alpha is dropped later, not composed: colours stay as they are stored. */
    private fun read(uri: Uri): Bitmap {
        val options = BitmapFactory.Options().apply {
            inPreferredConfig = Bitmap.Config.ARGB_8888
            inPremultiplied = false
            inScaled = false
        }
        val stored = open(uri).use { BitmapFactory.decodeStream(it, null, options) }
            ?: throw IllegalArgumentException(getString(R.string.no_image))
        val turn = when (open(uri).use { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1) }) {
            2 -> matrix(0f, true)
            3 -> matrix(180f, false)
            4 -> matrix(180f, true)
            5 -> matrix(90f, true)
            6 -> matrix(90f, false)
            7 -> matrix(270f, true)
            8 -> matrix(270f, false)
            else -> return stored
        }
        stored.isPremultiplied = true           // createBitmap draws, which needs it; photos with an orientation have no alpha
        return Bitmap.createBitmap(stored, 0, 0, stored.width, stored.height, turn, false)
    }

    private fun matrix(degrees: Float, mirrored: Boolean) = Matrix().apply {
        postRotate(degrees)
        if (mirrored) postScale(-1f, 1f)
    }

    private fun open(uri: Uri) = contentResolver.openInputStream(uri) ?: throw IllegalArgumentException(getString(R.string.no_image))

    private companion object {
        const val PICK = 1
    }
}
