"""What reports show of a detector's and a segmentor's mistakes."""

import numpy as np
from PIL import Image

from ppcls_nextvit.models.api import Instances
from ppcls_nextvit.tasks.detection.mistakes import mistakes, mistakes_sheet
from ppcls_nextvit.tasks.pictures import captioned_sheet
from ppcls_nextvit.tasks.segmentation.pictures import comparison_sheet, wrong_pixels

NAMES = ["cat", "dog"]
CAT, DOG = 0, 1


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def found(*rows):
    """Instances of (box, score, label)."""
    parts = zip(*rows, strict=True) if rows else ((), (), ())
    where, scores, labels = map(list, parts)
    return Instances(boxes(*where), np.array(scores, np.float32), np.array(labels, int), None)


def truth(*rows, crowds=()):
    where, labels = zip(*rows, strict=True) if rows else ((), ())
    return {
        "boxes": boxes(*where),
        "labels": np.array(labels, int),
        "ignore_boxes": boxes(*crowds),
    }


def test_each_kind_of_mistake_is_told():
    true = truth(
        ((0, 0, 10, 10), CAT),
        ((20, 0, 30, 10), DOG),
        ((50, 0, 60, 10), CAT),
        ((0, 50, 30, 60), DOG),
        crowds=[(70, 70, 90, 90)],
    )
    seen = found(
        ((0, 0, 10, 9), 0.9, CAT),  # right: an IoU of 0.9
        ((0, 0, 10, 8), 0.8, CAT),  # of the same
        ((20, 0, 30, 10), 0.7, CAT),  # a dog
        ((54, 0, 64, 10), 0.6, CAT),  # an IoU of 6 / 14
        ((40, 40, 44, 44), 0.5, DOG),
        ((72, 72, 80, 80), 0.4, DOG),  # in the crowd
    )
    wrong, missed = mistakes(7, true, seen, NAMES)
    assert [each.text for each in wrong] == [
        ("cat 0.80", "found twice"),
        ("cat 0.70", "is: dog"),
        ("cat 0.60", "IoU 0.43"),
        ("dog 0.50", "nothing there"),
    ]
    assert [each.weight for each in wrong] == [np.float32(score) for score in (0.8, 0.7, 0.6, 0.5)]
    assert [(each.text, each.weight) for each in missed] == [
        (("dog", "10 x 10 pixels"), 100.0),
        (("cat", "10 x 10 pixels"), 100.0),
        (("dog", "30 x 10 pixels"), 300.0),
    ]
    assert {each.index for each in [*wrong, *missed]} == {7}


def test_the_most_confident_takes_the_best_free_object():
    true = truth(((0, 0, 10, 10), CAT), ((2, 0, 12, 10), CAT))
    seen = found(((1, 0, 11, 10), 0.9, CAT), ((0, 0, 10, 10), 0.8, CAT))
    assert mistakes(0, true, seen, NAMES) == ([], [])


def test_nothing_found_and_nothing_there():
    wrong, missed = mistakes(0, truth(), found(((0, 0, 4, 4), 0.9, DOG)), NAMES)
    assert [each.text for each in wrong] == [("dog 0.90", "nothing there")] and missed == []
    wrong, missed = mistakes(0, truth(((0, 0, 4, 4), DOG)), found(), NAMES)
    assert wrong == [] and len(missed) == 1


def test_thumbnails_show_the_object_and_its_surroundings():
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 100:120] = 255
    where = (100, 40, 120, 60)
    wrong, _ = mistakes(3, truth(), found((where, 0.9, CAT), ((0, 0, 8, 8), 0.8, DOG)), NAMES)
    asked = []

    def load(index):
        asked.append(index)
        return image

    sheet = np.asarray(mistakes_sheet(wrong, 1, load, lambda index: boxes((90, 30, 100, 40))))
    assert asked == [3] and sheet.shape[1] == 160  # the worst alone
    thumbnail = sheet[:160].astype(int)
    # 48 pixels of the image in 160: the object from 47 to 113
    assert (thumbnail[52:108, 52:108] > 200).all() and (thumbnail[120:, 120:] < 50).all()
    red, green = np.array((255, 60, 0)), np.array((0, 200, 80))
    assert (thumbnail[46:49, 80] == red).any() and (thumbnail[80, 112:116] == red).all(1).any()
    assert (thumbnail == green).all(2).any()


def test_a_thumbnail_at_an_edge_and_of_a_small_image():
    image = np.full((20, 30, 3), 9, np.uint8)
    wrong, _ = mistakes(0, truth(), found(((25, 15, 30, 20), 0.9, CAT)), NAMES)
    sheet = mistakes_sheet(wrong, 5, lambda index: image, lambda index: boxes())
    assert sheet.width == 160


def test_captions_stand_under_their_pictures():
    shown = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue", "green")]
    sheet = np.asarray(captioned_sheet(shown, [("a", "b"), ("c", "d"), ("e", "f")], columns=2))
    assert sheet.shape == (2 * (40 + 2 * 18 + 4), 2 * 54 - 4, 3)
    assert (sheet[:40, :50] == (255, 0, 0)).all() and (sheet[:40, 54:] == (0, 0, 255)).all()
    assert (sheet[40:76, :50].min() < 128) and (sheet[80:120, 54:] == 255).all()


def test_wrong_pixels_of_a_segmentor():
    true = np.array([[0, 1], [255, 1]])
    guess = np.array([[0, 0], [1, 1]])
    assert wrong_pixels(true, guess).tolist() == [[False, True], [False, False]]
    image = np.full((2, 2, 3), 200, np.uint8)
    plain = comparison_sheet([(image, true, guess)], NAMES)
    marked = np.asarray(comparison_sheet([(image, true, guess)], NAMES, wrong=True))
    assert marked.shape[1] == plain.width + 260
    last = marked[18 : 18 + 256, -256:]
    assert (last[64, 192] == (255, 60, 0)).all() and (last[192, 64] == 200).all()
