"""Multi-scale deformable attention against its definition, and the places of tokens of padded
images.
"""

import math

import numpy as np
import paddle
import pytest

from ppcls_nextvit.models.detectors.deformable import (
    DeformableEncoder,
    MultiScaleDeformableAttention,
    _numbers,
    _quotient,
    cell_centres,
    multi_scale_deformable_attention,
    reference_points,
    valid_cells,
    valid_counts,
    valid_ratios,
)
from ppcls_nextvit.models.detectors.transformer import MultiheadAttention, box_sines, sine_position
from support.goldens import max_difference

SHAPES = [(5, 7), (3, 4), (1, 2)]
TOKENS = sum(h * w for h, w in SHAPES)


def by_definition(value, shapes, locations, weights):
    """The same as multi_scale_deformable_attention, one sample and one neighbour at a time."""
    batch, _, heads, channels = value.shape
    out = np.zeros((batch, locations.shape[1], heads, channels))
    places = np.ndindex(locations.shape[:-1])
    starts = np.cumsum([0, *(h * w for h, w in shapes)])
    for b, q, head, level, point in places:
        height, width = shapes[level]
        tokens = value[b, starts[level] : starts[level + 1], head]
        column, row = locations[b, q, head, level, point] * [width, height] - 0.5
        for y in (math.floor(row), math.floor(row) + 1):
            for x in (math.floor(column), math.floor(column) + 1):
                if 0 <= y < height and 0 <= x < width:
                    share = (1 - abs(row - y)) * (1 - abs(column - x))
                    weight = weights[b, q, head, level, point] * share
                    out[b, q, head] += weight * tokens[y * width + x]
    return out.reshape(batch, -1, heads * channels)


def random_inputs(points=3, heads=2, channels=4):
    draw = np.random.default_rng(0)
    value = draw.standard_normal((2, TOKENS, heads, channels))
    # some beyond the edges
    locations = draw.uniform(-0.3, 1.3, (2, 6, heads, len(SHAPES), points, 2))
    weights = draw.uniform(0, 1, locations.shape[:-1])
    return value, locations, weights


def test_sampling_is_its_definition():
    value, locations, weights = random_inputs()
    found = multi_scale_deformable_attention(
        paddle.to_tensor(value), SHAPES, paddle.to_tensor(locations), paddle.to_tensor(weights)
    )
    assert found.shape == [2, 6, 8]
    assert max_difference(found.numpy(), by_definition(value, SHAPES, locations, weights)) < 1e-12


def test_gradients_are_those_of_the_definition():
    value, locations, weights = random_inputs(points=1)
    tensors = [
        paddle.to_tensor(array, stop_gradient=False) for array in (value, locations, weights)
    ]
    direction = np.random.default_rng(1).standard_normal((2, 6, 8))
    found = multi_scale_deformable_attention(tensors[0], SHAPES, *tensors[1:])
    (found * paddle.to_tensor(direction)).sum().backward()
    step = 1e-6
    for i, array in enumerate((value, locations, weights)):
        shift = np.random.default_rng(2).standard_normal(array.shape)
        ends = []
        for sign in (-1, 1):
            moved = [value, locations, weights]
            moved[i] = array + sign * step * shift
            ends.append((by_definition(moved[0], SHAPES, *moved[1:]) * direction).sum())
        expected = (ends[1] - ends[0]) / (2 * step)
        assert float((tensors[i].grad.numpy() * shift).sum()) == pytest.approx(expected, rel=1e-6)


def test_at_first_heads_look_in_eight_directions():
    attention = MultiScaleDeformableAttention(32, heads=8, levels=2, points=3)
    offsets = attention.sampling_offsets.bias.numpy().reshape(8, 2, 3, 2)
    expected = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for level in range(2):
        for point in range(3):
            np.testing.assert_allclose(
                offsets[:, level, point], (point + 1) * np.array(expected), atol=1e-6
            )
    assert not attention.sampling_offsets.weight.any() and not attention.output_proj.bias.any()


def test_in_an_encoder_attention_begins_as_it_does_alone():
    """Values and outputs with Xavier's uniform weights and biases of 0, whatever the others do."""
    normal = paddle.nn.initializer.Normal(std=1.0)
    encoder = DeformableEncoder(32, 2, levels=2, points=2, hidden=16, depth=2, weights=normal)
    for layer in encoder.layers:
        for linear in (layer.self_attn.value_proj, layer.self_attn.output_proj):
            assert 0.9 < float(linear.weight.abs().max()) / math.sqrt(6 / 64) <= 1 + 1e-6
            assert not linear.bias.any()
        for linear in (layer.self_attn.sampling_offsets, layer.self_attn.attention_weights):
            assert not linear.weight.any()
        assert not layer.self_attn.attention_weights.bias.any()


def test_offsets_from_points_count_cells_and_from_boxes_shares_of_the_box():
    attention = MultiScaleDeformableAttention(8, heads=1, levels=2, points=2)
    shapes = [(4, 8), (2, 4)]
    offsets = paddle.arange(8, dtype="float32").reshape([1, 1, 1, 2, 2, 2])
    points = paddle.to_tensor([[[[0.5, 0.5], [0.25, 0.75]]]])
    found = attention._locations(points, offsets, shapes).numpy()[0, 0, 0]
    cells = np.array([[8, 4], [4, 2]], np.float32)[:, None]
    expected = points.numpy()[0, 0][:, None] + offsets.numpy()[0, 0, 0] / cells
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    boxes = paddle.to_tensor([[[[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.6, 0.8]]]])
    found = attention._locations(boxes, offsets, shapes).numpy()[0, 0, 0]
    centre, size = np.split(boxes.numpy()[0, 0][:, None], 2, axis=-1)
    np.testing.assert_allclose(found, centre + offsets.numpy()[0, 0, 0] / 2 * size * 0.5, rtol=1e-6)


@pytest.mark.parametrize("numbers", [2, 4])
def test_what_is_recorded_gives_the_same_numbers_from_points_and_from_boxes(numbers):
    draw = np.random.default_rng(0)
    heads, levels, points = 2, len(SHAPES), 3
    attention = MultiScaleDeformableAttention(8, heads, levels, points)
    value = paddle.to_tensor(draw.standard_normal((2, TOKENS, heads, 4), "float32"))
    references = paddle.to_tensor(draw.uniform(0.2, 0.8, (2, 6, levels, numbers)).astype("float32"))
    offsets = paddle.to_tensor(
        draw.standard_normal((2, 6, heads, levels, points, 2), dtype="float32")
    )
    weights = paddle.to_tensor(draw.random((2, 6, heads, levels, points), "float32"))
    locations = attention._locations(references, offsets, SHAPES)
    expected = attention.sampled(value, SHAPES, locations, weights).numpy()
    found = attention._recorded(value, SHAPES, references, offsets.flatten(2), weights.flatten(3))
    assert max_difference(found.numpy(), expected) < 1e-5 < np.abs(expected).mean()


def test_numbers_of_which_a_program_knows_some():
    assert _numbers([3, 4]).tolist() == _numbers([3, paddle.to_tensor(4)]).tolist() == [3.0, 4.0]
    assert float(_quotient(paddle.to_tensor(3), 4)) == 0.75


def test_an_image_sees_nothing_of_its_padding():
    """The encoder's tokens of an image in a padded batch do not depend on what is in the padding,
    and the grids of maps follow the reference's nearest pixel.
    """
    paddle.seed(0)
    shapes, padded = [(5, 7), (3, 4)], (20, 28)
    shape = paddle.to_tensor([[20, 28], [13, 16]])
    cells = [valid_cells(shape, padded, size) for size in shapes]
    # pixels 0, 4, 8, 12, 16 of the first level; 0, 7, 14, 21 and 0, 6.67, 13.3 of the second
    assert cells[0][1].numpy().sum() == 4 * 4 and cells[0][0].numpy().all()
    assert cells[1][1].numpy().sum() == 2 * 3
    counts = valid_counts(cells)
    assert counts.tolist() == [[[7, 5], [4, 3]], [[4, 4], [3, 2]]]
    np.testing.assert_allclose(
        valid_ratios(counts, shapes).numpy()[1], [[4 / 7, 4 / 5], [3 / 4, 2 / 3]], rtol=1e-6
    )
    valid = paddle.concat([cell.flatten(1) for cell in cells], axis=1)
    position = paddle.concat([sine_position(cell, 8) for cell in cells], axis=1)
    encoder = DeformableEncoder(16, heads=2, levels=2, points=2, hidden=16, depth=2).eval()
    x = paddle.randn([2, 47, 16])
    other = paddle.where(valid.unsqueeze(-1), x, paddle.randn([2, 47, 16]))
    references = reference_points(shapes, counts)
    one, two = (encoder(y, position, references, shapes, valid).numpy() for y in (x, other))
    inside = valid.numpy()
    np.testing.assert_allclose(one[inside], two[inside], atol=1e-5)
    assert max_difference(one[~inside], two[~inside]) > 0.1


def test_centres_of_cells_are_shares_of_the_valid_part():
    found = cell_centres((2, 3), paddle.to_tensor([[3.0, 2.0], [2.0, 1.0]])).numpy()
    x, y = np.meshgrid([0.5, 1.5, 2.5], [0.5, 1.5])
    for image, (columns, rows) in enumerate([(3, 2), (2, 1)]):
        expected = np.stack([x.ravel() / columns, y.ravel() / rows], axis=1)
        np.testing.assert_allclose(found[image], expected, rtol=1e-6)


def test_sines_of_places():
    """Of a place p among n: sin and cos of 2 pi p / n over growing powers of the temperature."""
    valid = paddle.to_tensor([[[True, True, True], [True, True, False]]])
    found = sine_position(valid, features=4, temperature=100.0).numpy().reshape(2, 3, 8)
    angle = 2 * math.pi * 2 / 2
    expected = [math.sin(angle), math.cos(angle), math.sin(angle / 10), math.cos(angle / 10)]
    np.testing.assert_allclose(found[1, 0, :4], expected, atol=1e-4)  # y: the second of two rows
    angle = 2 * math.pi * 1 / 2
    expected = [math.sin(angle), math.cos(angle), math.sin(angle / 10), math.cos(angle / 10)]
    np.testing.assert_allclose(found[1, 0, 4:], expected, atol=1e-4)  # x: the first of two columns
    boxes = paddle.to_tensor([[[0.1, 0.2, 0.3, 0.4]]])
    sines = box_sines(boxes, features=4, temperature=100.0).numpy().reshape(4, 4)
    np.testing.assert_allclose(
        sines[:, 0], np.sin(2 * math.pi * np.array([0.2, 0.1, 0.3, 0.4])), atol=1e-6
    )


def test_attention_is_paddles():
    paddle.seed(0)
    ours, theirs = MultiheadAttention(8, 2), paddle.nn.MultiHeadAttention(8, 2)
    weights, biases = ours.attn.in_proj_weight, ours.attn.in_proj_bias
    biases.set_value(paddle.randn(biases.shape))
    parts = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    for part, weight, bias in zip(parts, weights.chunk(3), biases.chunk(3), strict=True):
        part.weight.set_value(weight.T)
        part.bias.set_value(bias)
    theirs.out_proj.set_state_dict(ours.attn.out_proj.state_dict())
    query, memory = paddle.randn([2, 3, 8]), paddle.randn([2, 5, 8])
    blocked = paddle.to_tensor(np.random.default_rng(0).random((3, 5)) < 0.4)
    expected = theirs(query, memory, memory, paddle.logical_not(blocked))
    assert max_difference(ours(query, memory, memory, blocked).numpy(), expected.numpy()) < 1e-6
    assert max_difference(ours(query, memory, memory).numpy(), expected.numpy()) > 1e-3
