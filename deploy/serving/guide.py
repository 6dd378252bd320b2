"""The page at /docs: what may be asked, and a form to try it. It loads nothing from elsewhere."""

import html
import json

OPTIONS = {
    "classification": ["topk=N: as many classes, best first"],
    "detection": [
        "score_threshold=X: objects that score X or more, 0 to 1",
        "mask_threshold=X: from which probability a pixel is an object's (0.5)",
        "masks=rle|png|none: COCO's run lengths, a PNG in base64 for each object, or none (rle)",
    ],
    "segmentation": [
        "masks=rle|png|none: COCO's run lengths for each class, one PNG in base64 whose grey "
        "values are class numbers, or none (rle)"
    ],
}
ANSWERS = {
    "classification": '{"predictions": [{"class_id", "label", "score"}, ...], "batch_size"}',
    "detection": '{"height", "width", "objects": [{"class_id", "label_name", "score", "box": '
    '[x1, y1, x2, y2], "mask": {"size", "counts"}}, ...]}',
    "segmentation": '{"height", "width", "classes": [{"class_id", "label_name", "pixels", '
    '"share", "mask": {"size", "counts"}}, ...]}',
}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ background: #f2f2f2; padding: .7rem; overflow: auto; max-height: 24rem }}</style>
<h1>{name}</h1>
<p>For {task}, {classes} classes.</p>
<h2>POST /predict</h2>
<p>The picture is the multipart field <code>file</code>, JSON
<code>{{"image": "&lt;base64&gt;"}}</code>, or the body itself with
<code>Content-Type: image/...</code>; at most {max_bytes} bytes and {max_pixels} pixels.
In the address:</p>
<ul>{options}</ul>
<pre>curl -F file=@photo.jpg http://{host}/predict</pre>
<p>The answer: <code>{answer}</code></p>
<p>What cannot be used has its reason in <code>detail</code>: 400, 413 too large, 415 no picture,
422 damaged, 503 busy, 504 no answer in time.</p>
<form action="predict" method="post" enctype="multipart/form-data">
<p><input type="file" name="file" accept="image/*" required> <button>Try it</button></p></form>
<h2>GET</h2>
<ul><li><a href="health">/health</a>: 200 when every worker has the model
<li><a href="info">/info</a>: model and limits
<li><a href="metrics">/metrics</a>: Prometheus text</ul>
<pre>{info}</pre>
</html>
"""


def guide(about: dict, host: str) -> str:
    """The page, as HTML. about: what /info tells. host: as whom the client asked the service."""
    model = about["model"]
    task = model["task"]
    return PAGE.format(
        name=html.escape(str(model["model"])),
        host=html.escape(host),
        task=task,
        classes=model["classes"],
        max_bytes=model["max_bytes"],
        max_pixels=model["max_pixels"],
        options="".join(f"<li><code>{html.escape(option)}</code>" for option in OPTIONS[task]),
        answer=html.escape(ANSWERS[task]),
        info=html.escape(json.dumps(about, indent=1)),
    )
