"""Reduced precision up to a point: what makes a detector's feature maps (its trunk) is made smaller
and faster, and what chooses boxes among them stays in float32.

`WithTrunk` makes a layer show its maps while it is recorded, so that they can be found in any
format; `reduced` and `reduced_openvino` change what leads up to them.
"""

from typing import Any, Callable, Dict, List, Sequence, Set

from paddle import Tensor, nn

from .verify import ExportError, Signature

__all__ = ["WithTrunk", "reduced", "reduced_openvino", "trunk_of"]

NAME = "trunk"  # of its outputs, with their index


class WithTrunk(nn.Layer):
    """`layer`, whose outputs are followed by those of the part of it that `path` names."""

    def __init__(self, layer: nn.Layer, path: str) -> None:
        super().__init__()
        parts = dict(layer.named_sublayers())
        if path not in parts:
            raise ExportError(
                f"{type(layer).__name__} has no part {path!r}, up to which it would be reduced"
            )
        self.layer = layer
        self.maps: Sequence[Tensor] = ()
        parts[path].register_forward_post_hook(self._keep)
        self.eval()

    def _keep(self, part: nn.Layer, inputs: Any, maps: Sequence[Tensor]) -> None:
        self.maps = maps

    def forward(self, *inputs: Tensor) -> List[Tensor]:
        """As `layer`, a list: its outputs, then the maps."""
        outputs = self.layer(*inputs)
        maps, self.maps = self.maps, ()
        return [*outputs, *maps]


def names_of(signature: Signature, count: int) -> List[str]:
    """The names of `count` outputs of a recorded layer: those of `signature`, then the trunk's."""
    more = count - len(signature.outputs)
    return [*signature.outputs, *(f"{NAME}{index}" for index in range(more))]


def trunk_of(names: Sequence[str], signature: Signature) -> List[str]:
    """Those outputs of a program that `signature` does not have: where its trunk ends."""
    return [name for name in names if name not in signature.outputs]


def reduced(model: Any, signature: Signature, change: Callable[[Any], Any]) -> Any:
    """change(model), of an onnx.ModelProto; of one with a trunk, the trunk alone as a model of its
    own goes through `change`, and ceases to be an output.
    """
    ends = trunk_of([value.name for value in model.graph.output], signature)
    if not ends:
        return change(model)
    inside = _ancestors(model.graph, ends)
    nodes: Dict[bool, List[Any]] = {True: [], False: []}
    for node in model.graph.node:
        nodes[bool(inside & set(node.output))].append(node)
    changed = change(_part(model, nodes[True], ends))
    graph, rest = changed.graph, nodes[False]
    wanted = {name for node in rest for name in node.input}
    # constants under a name of their own: the change may have made the trunk's into something else
    own = {t.name: f"{t.name}.float" for t in model.graph.initializer if t.name in wanted}
    for tensor in model.graph.initializer:
        if tensor.name in own:
            copied = graph.initializer.add()
            copied.CopyFrom(tensor)
            copied.name = own[tensor.name]
    for node in rest:
        copied = graph.node.add()
        copied.CopyFrom(node)
        copied.input[:] = [own.get(name, name) for name in node.input]
    # types of what the change made anew are no longer true
    del graph.value_info[:], graph.input[:], graph.output[:]
    graph.input.extend(model.graph.input)
    graph.output.extend(value for value in model.graph.output if value.name not in ends)
    return changed


def _ancestors(graph: Any, names: Sequence[str]) -> Set[str]:
    """The values that lead to those of `names`, themselves included."""
    made_by = {name: node for node in graph.node for name in node.output}
    left, found = list(names), set()
    while left:
        name = left.pop()
        if name in made_by and name not in found:
            found.add(name)
            left.extend(made_by[name].input)
    return found


def _part(model: Any, nodes: Sequence[Any], ends: Sequence[str]) -> Any:
    """The `nodes` of `model`, which lead to the values `ends`, as a model. Of an end that the nodes
    read, too, a copy goes out, whose type may become another.
    """
    part = type(model)()
    part.CopyFrom(model)
    graph = part.graph
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    wanted = {name for node in nodes for name in node.input}
    inner = {name: f"{name}.inner" for name in ends if name in wanted}
    for node in nodes:
        copied = graph.node.add()
        copied.CopyFrom(node)
        copied.input[:] = [inner.get(name, name) for name in node.input]
        copied.output[:] = [inner.get(name, name) for name in node.output]
    for name, source in inner.items():
        graph.node.add(op_type="Identity", name=source, input=[source], output=[name])
    graph.initializer.extend(t for t in model.graph.initializer if t.name in wanted)
    graph.input.extend(value for value in model.graph.input if value.name in wanted)
    graph.output.extend(value for value in model.graph.output if value.name in ends)
    return part


def reduced_openvino(model: Any, signature: Signature, change: Callable[[Any], Any]) -> Any:
    """The same of an openvino.Model."""
    import openvino

    outputs = {output.get_any_name(): output for output in model.outputs}
    ends = trunk_of(list(outputs), signature)
    if not ends:
        return change(model)
    (image,) = (x for x in model.inputs if x.get_any_name() == next(iter(signature.inputs)))
    places = [outputs[name].get_node().input_value(0) for name in ends]
    # a copy, since what only the rest reads would be seen from its nodes
    changed = change(openvino.Model(places, [image.get_node()]).clone())
    for name in ends:
        model.remove_result(outputs[name].get_node())
    for place, result in zip(places, changed.results):
        place.replace(result.input_value(0))
    changed.inputs[0].replace(image)
    return openvino.Model(model.results, model.get_parameters())
