"""What newcomers misremember is told with its remedy.

Outside of pytest, whose run-time type checks would come first.
"""

import json
import pickle
import subprocess
import sys

import pytest

from ntkbayes.errors import UnknownNameError

SLIPS = {
    "laws without names": ("nb.compare([law], test, key=key)", "{'MAP': law}"),
    "one law": ("nb.compare(law, test, key=key)", "{'MAP': law}"),
    "methods in place of laws": ("nb.compare({'a': nb.MAP()}, test, key=key)", "fit it first"),
    "laws and data swapped": (
        "nb.compare(test, {'a': law}, key=key)",
        "compare(laws, test, key=key)",
    ),
    "a tuple of test data": ("nb.compare({'a': law}, (X, y), key=key)", "nb.Dataset(X, y)"),
    "a seed": ("nb.RandomInit().fit(prior, train, key=7)", "jax.random.key(7)"),
    "a seed, to a law that draws nothing": (
        "nb.MAP().fit(prior, train, key=0)",
        "jax.random.key(0)",
    ),
    "a seed, to a split": ("train.split(3)", "jax.random.key(3)"),
    "a seed, to a law": ("law.sample(0, X)", "jax.random.key(0)"),
    "a seed, to a prediction": ("nb.predict(law, test, key=0)", "jax.random.key(0)"),
    "a seed, to corruptions": (
        "nb.datasets.corrupt(digits, 'gaussian_noise', 1, 4)",
        "jax.random.key(4)",
    ),
    "NumPy's generator": (
        "nb.RandomInit().fit(prior, train, key=np.random.default_rng())",
        "a Generator",
    ),
    "several keys": ("nb.RandomInit().fit(prior, train, key=jax.random.split(key))", "keys[0]"),
    "features in place of a key": ("law.sample(X, key)", "an array of shape (9, 2)"),
    "a tuple": ("nb.MAP().fit(prior, (X, y))", "nb.Dataset(X, y)"),
    "features alone": ("nb.MAP().fit(prior, X)", "nb.Dataset(X, y)"),
    "features and targets": ("nb.MAP().fit(prior, X, y)", "nb.Dataset(X, y)"),
    "scikit-learn's arguments": ("nb.MAP().fit(X, y)", "the prior comes first"),
    "a data frame": ("nb.MAP().fit(prior, frame)", "frame[target]"),
    "a name": ("nb.MAP().fit(prior, 'iris')", "nb.datasets.load('iris')"),
    "a path": ("nb.MAP().fit(prior, 'my.csv')", "nb.datasets.read_table('my.csv', target=...)"),
    "prior and data swapped": (
        "nb.MAP().fit(train, prior)",
        "fit(prior, data), prior must be an NTKPrior",
    ),
    "a network": ("nb.MAP().fit(nb.networks.mlp(), train)", "nb.NTKPrior(network, ridge=...)"),
    "no data": ("nb.MAP().fit(prior)", "give the training data"),
    "a key by position": ("nb.RandomInit().fit(prior, train, key)", "key=key"),
    "the class of a method": ("nb.MAP.fit(prior, train)", "nb.MAP().fit(prior, data)"),
    "the class of a likelihood": (
        "nb.MAP().fit(prior, train, likelihood=nb.likelihood.Bernoulli)",
        "Bernoulli(…)",
    ),
    "a likelihood by name": ("nb.MAP().fit(prior, train, likelihood='softmax')", "'softmax'"),
    "a class within a method": ("nb.TemperatureScaled(nb.MAP)", "MAP(…)"),
    "a network that was not made": ("nb.NTKPrior(nb.networks.mlp, ridge=1.0)", "the function mlp"),
    "prior and data as settings": ("nb.Laplace(prior, train)", "an NTKPrior"),
    "prediction at an array": (
        "nb.predict(law, X, key=key)",
        "law.predict_proba(features, key=key)",
    ),
    "prediction by a method": ("nb.predict(nb.MAP(), test, key=key)", "fit it first"),
    "law and data swapped": ("nb.predict(test, law, key=key)", "predict(law, data, key=key)"),
    "probabilities by a method": (
        "nb.predictions.predict_probabilities(nb.MAP(), X, key=key)",
        "fit it first",
    ),
    "probabilities without a key": ("laplace.predict_proba(X)", "key=jax.random.key(0)"),
    "a DataTree of a law": ("nb.to_datatree(law)", "nb.predict(law, data, key=key)"),
    "a law to save as a comparison": ("nb.save(law, 'runs/a')", "nb.save_law(law, path)"),
    "cross-validation by a class": (
        "nb.cross_validated_nll(nb.MAP, prior, train, key=key)",
        "MAP(…)",
    ),
    "evidence of a network": ("nb.log_evidence(nb.networks.mlp(), train)", "nb.NTKPrior(network"),
    "methods of a study without names": (
        "nb.Study(data=train, prior=prior, methods=[nb.MAP()])",
        "methods={'MAP': nb.MAP()",
    ),
    "classes in a study": ("nb.Study(data=train, prior=prior, methods={'a': nb.MAP})", "MAP(…)"),
    "a tuple in a study": ("nb.Study(data=(X, y), prior=prior)", "nb.Dataset(X, y)"),
    "a file by load": ("nb.datasets.load('my.csv')", "read_table"),
    "a file by Dataset": ("nb.Dataset('my.csv', 'species')", "read_table"),
    "a data set as features": ("nb.Dataset(train, y)", "it is data already"),
    "a seed of NumPy's": ("train.split(np.int64(5))", "jax.random.key(5)"),
    "memory of a tuple": ("nb.MAP().memory(prior, (X, y))", "nb.Dataset(X, y)"),
    "priors without labels": ("nb.scan([prior], train)", "give each prior a label"),
    "a scan of networks": ("nb.scan({1: nb.networks.mlp()}, train)", "nb.NTKPrior(network"),
    "a tuple to NumPyro's model": ("nb.numpyro_model(prior, (X, y))", "nb.Dataset(X, y)"),
    "a tuple to a certificate": (
        "nb.lazy.certify(nb.networks.mlp(width=4), (X, y), ridge=1.0, key=key)",
        "nb.Dataset(X, y)",
    ),
    "a law to a predictive check": (
        "nb.checks.predictive_check(law, nb.checks.class_frequencies(2))",
        "nb.predict(law, data, key=key)",
    ),
    "a method to the test of an ensemble": (
        "nb.checks.follows_law(np.zeros((12, 9, 1)), nb.MAP(), X, key=key)",
        "fit it first",
    ),
    "ensembles without their widths": (
        "nb.checks.over_widths([np.zeros((12, 9, 1))], law, X, key=key)",
        "give the logits by width",
    ),
    "a DataTree of a comparison": (
        "nb.to_datatree(nb.compare({'MAP': law}, test, key=key))",
        "comparison.predictions[name]",
    ),
    "a surface of a method": ("nb.predictions.surface(nb.MAP(), train, key=key)", "fit it first"),
    "pixels of a tuple": ("nb.datasets.corrupt((X, y), 'blur', 1, key)", "must be a Dataset"),
    "capitals in an activation": ("nb.networks.mlp(activation='ReLU')", "did you mean 'relu'?"),
    "a hyphen in a data set": (
        "nb.datasets.load('breast-cancer')",
        "did you mean 'breast_cancer'?",
    ),
    "small letters in a name": ("nb.laplace", "did you mean 'Laplace'?"),
    "another's spelling": ("nb.random_init", "did you mean 'RandomInit'?"),
    "a setting that is misspelt": (
        "nb.NUTS().set_params(num_sample=5)",
        "did you mean 'num_samples'?",
    ),
}
SCRIPT = """
import json, sys
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np, pandas as pd
import ntkbayes as nb

key = jax.random.key(0)
X, y = np.arange(18.0).reshape(9, 2) % 5, np.arange(9) % 2
frame = pd.DataFrame(X, columns=["a", "b"])
train = test = nb.Dataset(X, y)
digits = nb.datasets.load("digits").take(np.arange(20))
prior = nb.NTKPrior(nb.networks.mlp(depth=1, activation="identity"), ridge=1.0)
law, laplace = nb.MAP().fit(prior, train), nb.Laplace().fit(prior, train)
told = {}
for name, code in json.load(sys.stdin).items():
    try:
        eval(code)
    except Exception as error:
        told[name] = [type(error).__module__, type(error).__name__, str(error)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps({name: code for name, (code, _) in SLIPS.items()}),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_told_with_its_remedy(told, name):
    module, kind, message = told[name]
    assert module == "ntkbayes.errors" or kind == "AttributeError"
    assert SLIPS[name][1] in message
    assert len(message) < 400


def test_an_unknown_name_passes_through_processes_as_it_is():
    error = UnknownNameError("law", "laplce", ("laplace", "map"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
