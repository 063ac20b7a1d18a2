"""The same bits on any number of devices: every batch is computed in the same parts, and their gradients are added in
the same order.

Sums of floats depend on their order, and training amplifies the last bit (docs/clusters.md). What the compiler makes of
a part must then not depend on how many of them a device takes either: barriers keep it from looking beyond one.
"""

from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import PartitionSpec

from imgrec_cli.errors import InputError

Tree = Any
_STRIDE = np.uint32(
    0x9E3779B9
)  # between the seeds of two parts: 2³² over the golden ratio, so that they are far from each other


class InShards(keras.Model):
    """A model on JAX whose training step takes a batch in `shards` parts, a power of two.

    Random layers draw for each part by itself; pictures are mixed within a part.
    """

    shards: int

    def train_step(self, state: Tree, data: Tree) -> Tree:
        trainable, other, kept, sums = state
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        seeds = [str(v.dtype) == "uint32" for v in self.non_trainable_variables]

        def part(variables: Tree, shard: Tree) -> Tree:
            (weights, fixed, *rest), (number, images, labels) = jax.lax.optimization_barrier((variables, shard))
            moved = [v.at[0].add(number * _STRIDE) if seed else v for v, seed in zip(fixed, seeds, strict=True)]
            (_, (loss, logits, after, _)), gradients = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)(
                weights, moved, rest[0], images, labels, None, training=True, optimizer_variables=rest[1]
            )
            drawn = [v for v, seed in zip(after, seeds, strict=True) if seed]
            return variables, jax.lax.optimization_barrier((gradients, loss, logits, drawn))

        def of_one_device(variables: Tree, x: Tree, y: Tree) -> Tree:
            devices = 1 if active is None else active.device_mesh.shape[0]
            mine, each = self.shards // devices, len(x) // (self.shards // devices)
            first = 0 if active is None else jax.lax.axis_index("batch") * mine
            numbers = (first + jax.numpy.arange(mine)).astype("uint32")
            parts = (numbers, *(array.reshape(mine, each, *array.shape[1:]) for array in (x, y)))
            _, (gradients, losses, logits, drawn) = jax.lax.scan(part, variables, parts, unroll=True)
            added = jax.tree.map(_added_in_pairs, (gradients, losses))
            distance = 1
            while distance < devices:  # each adds what its neighbour at this distance has: all get the same sum
                pairs = [(device, device ^ distance) for device in range(devices)]
                added = jax.tree.map(lambda v, to=pairs: v + jax.lax.ppermute(v, "batch", to), added)
                distance *= 2
            gradients, loss = jax.lax.optimization_barrier(jax.tree.map(lambda v: v / self.shards, added))
            own = [v[0].at[0].add(-numbers[0] * _STRIDE) for v in drawn]
            return gradients, loss, logits.reshape(-1, logits.shape[-1]), own

        active, variables = keras.distribution.distribution(), (trainable, other, sums, kept)
        if active is None:
            gradients, loss, logits, drawn = of_one_device(variables, x, y)
        else:
            divided, whole = PartitionSpec("batch"), PartitionSpec()
            gradients, loss, logits, drawn = jax.shard_map(
                of_one_device,
                mesh=active.device_mesh.backend_mesh,
                in_specs=(whole, divided, divided),
                out_specs=(whole, whole, divided, whole),
                check_vma=False,  # it cannot see that the sums are the same everywhere
            )(variables, x, y)
        trainable, kept = self.optimizer.stateless_apply(kept, gradients, trainable)
        logs, sums = self._update_metrics_variables(sums, loss, x, y, logits, None)  # as Keras's own step does
        advanced = iter(drawn)
        other = [next(advanced) if seed else v for v, seed in zip(other, seeds, strict=True)]
        return logs, (trainable, other, kept, sums)


def _added_in_pairs(parts: Any) -> Any:
    while len(parts) > 1:
        parts = parts[0::2] + parts[1::2]
    return parts[0]


def in_shards(model: keras.Model, shards: int) -> keras.Model:
    """The same layers and weights, trained in that many parts of every batch. Raises InputError for batch norms that
    learn: their statistics are those of a whole batch."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            raise InputError(
                f"distribute.shards: {layer.name} is a batch norm, and needs the whole batch at once",
                "leave distribute.shards out; results then depend on the number of devices by rounding",
            )
    found = InShards(model.inputs[0], model.outputs[0], name=model.name)
    found.shards = shards
    return found
