"""Backbones: the facts that are known without Keras, their scaling, fused and frozen forms, and what is refused."""

import math

import numpy as np
import pytest

from imgrec_cli.config import BackboneModel, Image, load_config
from imgrec_cli.config.shapes import BACKBONES
from imgrec_cli.errors import ConfigError, InputError

pytestmark = pytest.mark.tf

SMALL = Image(size=(32, 64))


def network(name, *, fused=False, dtype="float32", image=SMALL, **options):
    from imgrec_cli.training.backbone import backbone

    return backbone(BackboneModel(type="backbone", name=name, **options), image, dtype, fused=fused)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        pytest.param(*key, marks=[pytest.mark.slow] if facts.parameters > 20e6 and key[0] != "resnet50" else [])
        for key, facts in BACKBONES.items()
    ],
)
def test_facts_are_those_of_the_built_network(name, width):
    import keras

    from imgrec_cli.training.families import application

    facts, size = BACKBONES[name, width], (85, 101)
    built = network(name, width=width, image=Image(size=size))
    assert (built.count_params(), built.output_shape[-1]) == (facts.parameters, facts.channels)
    maps = [layer.output.shape for layer in built.layers if len(layer.output.shape) == 4]
    assert maps[-1][1:3] == tuple(map(facts.side, size))
    if facts.multiply_adds_per_pixel < 6000:  # the larger ones are counted alike
        plain = application(BackboneModel(type="backbone", name=name, width=width), Image(size=(224, 224)))
        counted = values = 0
        for layer in plain.layers:
            values += math.prod(layer.output.shape[1:])
            if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
                counted += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        assert facts.multiply_adds_per_pixel == pytest.approx(counted / 224**2, abs=0.6)
        assert facts.outputs_per_pixel == pytest.approx(values / 224**2, abs=0.6)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "resnet_v2", "xception", "densenet"])
def test_scaling_is_the_family_s_preprocess_input(name):
    import keras

    from imgrec_cli.training.families import family_scaling

    ours = {"resnet_v2": "resnet50_v2", "densenet": "densenet121"}.get(name, name)
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)).astype("float32")
    expected = getattr(keras.applications, name).preprocess_input(images.copy())
    got = family_scaling(BackboneModel(type="backbone", name=ours))(images)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "efficientnet_v2_b0", "efficientnet_v2_s", "convnext_tiny"], ids=str
)
def test_scaling_is_what_the_family_has_inside(name):
    import keras

    from imgrec_cli.training.families import FAMILIES, application, family_scaling

    keras.utils.set_random_seed(0)
    spec = BackboneModel(type="backbone", name=name)
    build = getattr(keras.applications, FAMILIES[name].constructor)
    whole = build(include_top=False, weights=None, input_shape=(32, 64, 3), pooling="avg")
    ours = application(spec, SMALL)
    ours.set_weights(whole.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 64, 3)).astype("float32")
    np.testing.assert_allclose(ours(family_scaling(spec)(images)), whole(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_v2_b0", "xception"])
def test_without_a_network_address_hash_and_folder_of_the_weights_are_told(monkeypatch, tmp_path, name):
    import keras
    from keras.src.utils import file_utils

    from imgrec_cli.training import families

    asked = []

    def fetched(name, url, cache_subdir, file_hash=None):
        asked.append((name, url, cache_subdir, file_hash))
        raise OSError("there is no network here")

    monkeypatch.setattr(file_utils, "get_file", fetched)
    monkeypatch.setattr(keras.utils, "get_file", fetched)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    side = 96 if name == "mobilenet_v2" else 224
    build = getattr(keras.applications, families.FAMILIES[name].constructor)
    with pytest.raises(OSError, match="no network"):
        build(include_top=False, weights="imagenet", input_shape=(side, side, 3))
    spec = BackboneModel(type="backbone", name=name, weights="imagenet")
    with pytest.raises(InputError, match="could not be fetched: there is no network here") as caught:
        families.weights_file(spec, Image(size=(side, side)))
    theirs, ours = asked
    assert ours == theirs
    told = caught.value.hint
    assert ours[1] in told
    assert str(tmp_path / "models") in told
    assert (ours[3] or "Keras knows no hash of it") in told


def test_files_and_hashes_stand_in_keras_s_own_code():
    import inspect
    import sys

    import keras

    from imgrec_cli.training.families import FAMILIES

    for name, width in BACKBONES:
        family = FAMILIES[name]
        code = inspect.getsource(sys.modules[getattr(keras.applications, family.constructor).__module__])
        if "resnet" in name:
            code += inspect.getsource(sys.modules[keras.applications.ResNet50.__module__])
        assert name == "mobilenet_v2" or family.hashes[width] in code
        assert family.file.partition("/")[0] + "/" in code


def test_fused_and_plain_networks_hold_the_same_weights_and_answer_alike():
    from imgrec_cli.training import fused

    plain, quick = network("mobilenet_v2"), network("mobilenet_v2", fused=True)
    assert any(type(layer) is fused.BatchNormalization for layer in quick.layers)
    quick.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    np.testing.assert_array_equal(quick(images, training=False), plain(images, training=False))
    assert [w.path.split("/", 1)[-1] for w in quick.weights] == [w.path.split("/", 1)[-1] for w in plain.weights]


def test_a_bias_before_batch_normalisation_moves_into_its_mean(tmp_path):
    import keras

    from imgrec_cli.training.backbone import load_pretrained

    keras.utils.set_random_seed(1)
    plain = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 64, 3), pooling="avg")
    generator = np.random.default_rng(0)
    plain.set_weights([w + 0.01 * generator.normal(size=w.shape).astype("float32") for w in plain.get_weights()])
    plain.save_weights(tmp_path / "resnet50.weights.h5")
    spec = BackboneModel(type="backbone", name="resnet50", weights=str(tmp_path / "resnet50.weights.h5"))
    ours = network("resnet50")
    load_pretrained(ours, spec, SMALL)
    images = generator.normal(size=(2, 32, 64, 3)).astype("float32")
    np.testing.assert_allclose(ours(images, training=False), plain(images, training=False), rtol=1e-3, atol=1e-4)


def test_sums_of_a_residual_network_are_fused_with_their_relu_and_others_are_not():
    import tensorflow as tf

    from imgrec_cli.training import fused

    residual, inverted = network("resnet50", fused=True), network("mobilenet_v2", fused=True)
    assert sum(type(layer) is fused.AddReLU for layer in residual.layers) == 16
    assert not any(type(layer) is fused.AddReLU for layer in inverted.layers)
    plain = network("resnet50")
    residual.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    results = []
    for model in (plain, residual):
        with tf.GradientTape() as tape:
            features = model(images)
            loss = tf.reduce_sum(tf.sin(features))
        results.append([features, *tape.gradient(loss, [weight.value for weight in model.trainable_variables])])
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_a_network_of_depthwise_convolutions_answers_as_keras_s_with_its_fast_layers():
    from imgrec_cli.training import fused

    plain, quick = network("mobilenet_v2"), network("mobilenet_v2", fused=True, dtype="mixed_bfloat16")
    kinds = [type(layer) for layer in quick.layers]
    assert (kinds.count(fused.Activation), kinds.count(fused.DepthwiseConv2D)) == (35, 17)
    quick = network("mobilenet_v2", fused=True)
    kinds = [type(layer) for layer in quick.layers]
    assert (kinds.count(fused.Activation), kinds.count(fused.DepthwiseConv2D)) == (0, 13)
    assert [layer.name for layer in plain.layers[1:]] == [layer.name for layer in quick.layers[1:]]
    quick.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    np.testing.assert_allclose(quick(images), plain(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_v2_b0"])
def test_every_kind_of_network_is_copied_with_its_fast_layers(name):
    width = 0.75 if name == "mobilenet_v3_small" else 1.0
    plain, quick = network(name, width=width), network(name, width=width, fused=True, dtype="mixed_bfloat16")
    quick.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    expected, found = plain(images).numpy(), quick(images).numpy().astype("float32")
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "mobilenet_v3_small"])
def test_normalisations_that_stay_frozen_lie_in_the_convolutions_and_train_as_keras_s_do(name):
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    width = 0.75 if name == "mobilenet_v3_small" else 1.0
    half = {"freeze": True, "unfreeze": {"from_layer": "50%", "epochs": 1, "learning_rate": 1e-3}}
    plain, quick = (network(name, width=width, fused=fused, **half) for fused in (False, True))
    random = np.random.default_rng(0)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            around = (1.0, 0.0, 0.0, 1.0)[-len(layer.weights) :]
            layer.set_weights([random.uniform(middle - 0.2, middle + 0.2, shape) for middle in around])
    quick.set_weights(plain.get_weights())
    images = random.normal(size=(2, 32, 64, 3)).astype("float32")
    results = []
    for model in (plain, quick):
        with tf.GradientTape() as tape:
            features = model(images, training=True)
            loss = tf.reduce_sum(tf.sin(features))
        results.append([features, *tape.gradient(loss, [weight.value for weight in model.trainable_variables])])
    assert len(results[0]) > 5
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    for theirs, ours in zip(plain.weights, quick.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # no statistic has moved
    rough = network(name, width=width, fused=True, dtype="mixed_bfloat16", **half)
    rough.set_weights(plain.get_weights())
    expected = results[0][0].numpy()
    found = rough(images, training=True).numpy().astype("float32")
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("size", [(64, 96), (75, 65)], ids=str)
@pytest.mark.parametrize(("name", "odd_only"), [("mobilenet_v2", 0), ("resnet50", 1)])
def test_zeros_around_a_map_are_left_to_the_convolution_where_it_puts_as_many(name, odd_only, size):
    import keras

    image = Image(size=size)
    plain, quick = network(name, image=image), network(name, image=image, fused=True)
    taken = [
        layer.name
        for layer in quick.layers
        if type(layer) is keras.layers.ZeroPadding2D and layer.padding == ((0, 0), (0, 0))
    ]
    assert len(taken) == (4 if not odd_only else size[0] % 2)
    quick.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    np.testing.assert_allclose(quick(images), plain(images), rtol=1e-4, atol=1e-5)


def test_the_dtype_policy_of_the_process_is_left_alone():
    import keras

    before = keras.config.dtype_policy().name
    assert network("mobilenet_v2", dtype="mixed_bfloat16").compute_dtype
    assert keras.config.dtype_policy().name == before


def test_a_file_that_is_no_weights_is_named(tmp_path):
    from imgrec_cli.training.backbone import load_pretrained

    path = tmp_path / "some_no_top.h5"
    path.write_bytes(b"not weights")
    spec = BackboneModel(type="backbone", name="mobilenet_v2", weights=str(path))
    with pytest.raises(InputError, match="not the weights of mobilenet_v2 without its top"):
        load_pretrained(network("mobilenet_v2"), spec, SMALL)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A weights file as keras.applications writes it, of random weights."""
    import keras

    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.weights.h5"
    network("mobilenet_v2").save_weights(path)
    return path


def settings(pretrained, *more, behind=""):
    return [
        f"model={{type: backbone, name: mobilenet_v2, weights: {pretrained}, freeze: true{behind}}}",
        "image={size: [32, 32]}",
        *more,
    ]


def test_a_frozen_backbone_is_shipped_as_it_was_with_the_trained_layers_behind_it(tiny_config, tmp_path, pretrained):
    import json

    import keras

    from imgrec_cli.api import train
    from imgrec_cli.classifier import Classifier
    from imgrec_cli.training import checkpoint

    behind = ", head: {units: 24, activation: silu}, dropout: 0.2"
    run = train(tiny_config, settings(pretrained, "train.epochs=3", behind=behind), runs=tmp_path)
    assert run.record["status"] == "finished"
    # only what stands behind the backbone was trained: its kernels and biases are all that the checkpoint holds
    arrays = checkpoint.read(run.best_checkpoint)[0]["weights"]
    assert [array.shape for array in arrays] == [(1280, 24), (24,), (24, 3), (3,)]
    layers = {row["name"]: row for row in json.loads(run.layers_file.read_text(encoding="utf-8"))}
    assert [layers[name]["parameters"] for name in ("head", "softmax")] == [1280 * 24 + 24, 24 * 3 + 3]
    # the bundle equals the file's backbone followed by these layers
    from imgrec_cli.training.backbone import backbone

    built = backbone(BackboneModel(type="backbone", name="mobilenet_v2"), Image(size=(32, 32)), "float32", fused=False)
    built.load_weights(pretrained)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    features = keras.ops.convert_to_numpy(built(pixels.astype("float32") / 127.5 - 1, training=False))
    hidden = features.astype("float64") @ arrays[0] + arrays[1]
    logits = (hidden / (1 + np.exp(-hidden))) @ arrays[2] + arrays[3]
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(Classifier.load(run.folder).scores(pixels), expected, atol=1e-4)


def test_features_computed_in_parts_of_the_pack_belong_to_their_rows(tiny_config, pretrained):
    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.training.features import frozen_features

    config = load_config(tiny_config, settings(pretrained))
    dataset = load_dataset(config.data, config.image, config.seed)
    whole = frozen_features(config, dataset, lambda event: None)
    in_parts = load_config(tiny_config, settings(pretrained, "distribute.pack_parts=4"))
    np.testing.assert_allclose(frozen_features(in_parts, dataset, lambda event: None), whole, atol=1e-5)
    assert whole[dataset.rows("train")].any(axis=1).all()
    assert not whole[dataset.rows("test")].any()


def test_with_augmentation_the_frozen_backbone_sees_every_changed_image(tiny_config, tmp_path, pretrained):
    from imgrec_cli.api import train
    from imgrec_cli.training import checkpoint

    run = train(tiny_config, settings(pretrained, "augment=[{type: flip}]", "train.epochs=1"), runs=tmp_path)
    arrays = checkpoint.read(run.best_checkpoint)[0]["weights"]
    assert len(arrays) > 200
    assert load_config(run.resolved_config_file).model.weights == str(pretrained)


def test_the_share_and_the_name_say_which_layers_are_unfrozen():
    import keras

    from imgrec_cli.config import Unfreeze

    def trainable(**unfreeze):
        built = network("mobilenet_v2", weights="x", freeze=True, unfreeze=Unfreeze(**unfreeze))
        assert not any(layer.trainable for layer in built.layers if isinstance(layer, keras.layers.BatchNormalization))
        return [layer.name for layer in built.layers if layer.trainable and layer.weights]

    assert trainable(from_layer="block_16") == ["block_16_expand", "block_16_depthwise", "block_16_project", "Conv_1"]
    assert len(trainable()) == 52  # every convolution
    assert trainable(from_layer="10%") == trainable(from_layer="block_15_project")
    with pytest.raises(InputError, match=r"model\.unfreeze\.from_layer: mobilenet_v2 has no layer blok_16") as caught:
        trainable(from_layer="blok_16_expand")
    assert caught.value.hint == "one of its layers is block_16_expand"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("unfreeze: {epochs: 3}", "model.unfreeze: is a second phase after a frozen one; set model.freeze: true"),
        (
            "freeze: true, unfreeze: {epochs: 3, learning_rate: {type: cosine, peak: 1, warmup: 3 epochs}}",
            "model.unfreeze.learning_rate.warmup: 3 epochs is the whole training of 3 epochs",
        ),
    ],
)
def test_a_second_phase_that_cannot_be_is_told(tiny_config, model, told):
    with pytest.raises(ConfigError) as caught:
        load_config(
            tiny_config, ["image={size: [32, 32]}", f"model={{type: backbone, name: resnet50, weights: w.h5, {model}}}"]
        )
    assert told in caught.value.message


def test_the_head_has_its_place_in_a_network_that_is_trained_as_a_whole():
    from imgrec_cli.config import Config, layer_table
    from imgrec_cli.training.model import shipped_model

    model = {"type": "backbone", "name": "mobilenet_v3_small", "width": 0.75, "head": {"units": 16}, "dropout": 0.5}
    config = Config.model_validate({"image": {"size": [32, 32]}, "model": model})
    built = shipped_model(config, 5, unfamiliarity=True)
    assert [layer.name for layer in built.layers[-6:]] == [
        "mobilenet_v3_small", "head", "dropout", "logits", "probabilities", "unfamiliarity"
    ]  # fmt: skip
    assert built.get_layer("head").activation.__name__ == "relu"
    parameters = sum(row.parameters for row in layer_table(config, 5))
    assert built.count_params() == parameters + built.get_layer("unfamiliarity").count_params()
