"""What runs the pages' commands notices what is wrong with them."""

import pytest

from support.doc_sandbox import (
    ROOT,
    blocks,
    check_commands,
    check_pip,
    run_page,
    split_launch,
    weight_files,
)

TRAIN = "python tools/train.py -c configs/NextViT_small_224.yaml"


def page(text, tmp_path):
    """`text`, in which ''' stands for fences, run as a page in an empty sandbox."""
    path, template = tmp_path / "page.md", tmp_path / "template"
    path.write_text(text.replace("'''", "```"))
    template.mkdir()
    run_page(path, template, tmp_path)


def test_a_page_is_one_session(tmp_path):
    page(
        "'''bash\nword=one\nmkdir made && cd made\n'''\n"
        "'''python\nnumbers = [1]\n\n\ndef total():\n    return sum(numbers) + later\n'''\n"
        "<!-- file: my/part.py -->\n'''python\nVALUE = 3\n'''\n"
        "'''bash\ntest $word = one && test -f ../my/part.py && test $(basename $PWD) = made\n'''\n"
        "'''python\nfrom my.part import VALUE\n\nlater = 5\nassert total() + VALUE == 9\n'''\n"
        "<!-- not run: it would fail -->\n'''bash\nfalse\n'''\n'''text\nfalse\n'''\n",
        tmp_path,
    )


@pytest.mark.parametrize(
    "block, words",
    [
        ("bash\necho before\nfalse\necho after", "page.md:1 failed(?s:.*)before\nfailed: false"),
        ("bash\nunknown_program", "not found"),
        ("python\n1 / 0", "ZeroDivisionError"),
        ("bash\npip install -e '.[nope]'", "no extra nope"),
        ("bash\npython -c 'raise SystemExit(3)'", "failed: python"),
    ],
)
def test_what_fails_in_a_block(block, words, tmp_path):
    with pytest.raises(AssertionError, match=words) as caught:
        page(f"'''{block}\n'''\n", tmp_path)
    assert "after" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        f"{TRAIN} -o Global.epochs=3 -o 'Optimizer.lr.learning_rate=1e-3'",
        f"weights=x {TRAIN}  # why",
        f"python -m paddle.distributed.launch --nnodes=2 --rank=0 {TRAIN.removeprefix('python ')}",
        f"cd / && {TRAIN} \\\n    -o Global.seed=1",
        "python -m weight_conversion a.pth b.pdparams --model NextViT_small",
        "nextvit convert a.pth b.pdparams --model NextViT_small",
        "nextvit train -c NextViT_small_224.yaml -o Global.epochs=3",
        "nextvit configs list small",
        "python -m pip install 'ppcls_nextvit[onnx]' paddlepaddle-gpu==3.3.1",
    ],
)
def test_what_is_not_run_and_right(command):
    check_commands(command, ROOT, ROOT / "README.md", "page")


@pytest.mark.parametrize(
    "command, words",
    [
        (f"{TRAIN} -o Global.epoch=3", "unknown key"),
        (f"{TRAIN} -o Global.epochs=many", "Global.epochs"),
        (f"{TRAIN} --epoch-number 3", "refuses"),
        (f"true; {TRAIN.replace('small', 'tiny')}", "no configs/NextViT_tiny_224.yaml"),
        ("python tools/nothing.py", "no tools/nothing.py"),
        (
            f"python -m paddle.distributed.launch --gpu=3 {TRAIN.removeprefix('python ')} -o "
            f"Global.epoch=3",
            "unknown key|refuses",
        ),
        ("python -m weight_conversion a.pth", "refuses"),
        ("nextvit convert a.pth", "refuses"),
        ("nextvit train -c NextViT_small_224.yaml -o Global.epoch=3", "unknown key"),
        ("nextvit trian", "refuses"),
        ("pip install paddlepaddle-gpu==3.4.0", "pip install"),
    ],
)
def test_what_is_not_run_and_wrong(command, words):
    with pytest.raises((AssertionError, ValueError), match=words):
        check_commands(command, ROOT, ROOT / "README.md", "page")


def test_parts(capsys):
    assert [
        (b.language, b.note, b.line)
        for b in blocks(
            "<!-- needs: json os -->\n```bash\nx\n```\n\n1. a\n\n   ```\n   y\n   ```\n"
        )
    ] == [("bash", ("needs", "json os"), 2), ("", ("", ""), 8)]
    assert split_launch(
        "--gpus 0,1 --master=a:1 --devices=3 tools/train.py -c x --gpus 4".split()
    ) == (["--master=a:1"], ["tools/train.py", "-c", "x", "--gpus", "4"])
    assert weight_files(
        "nextvit_no.pth\n```bash\na nextvit_small_in1k_224.pth "
        "=upernet_160k_nextvit_base.pth\n```\n"
    ) == ["nextvit_small_in1k_224.pth", "upernet_160k_nextvit_base.pth"]
    assert (
        check_pip(["install", "--no-deps", "paddleclas==2.6.0"]) == 0
        and check_pip(["install", "paddleclas==2.6.1"]) == 1
    )
