"""A convolutional network on images: digits, 8 × 8 pixels, ten classes, 300 points.

Copy this file, change what you need, then

    ntkbayes compare --model models/convolutional.py
"""

import jax

import ntkbayes as nb

# Data sets are tables, one row of 64 pixels per image, here from −1 to 1. `reshaped` turns them back
# into images, (8, 8, 1). Pixels keep their common scale: see standardise below.
digits = nb.datasets.load("digits").subset(jax.random.key(0), 300)
data = nb.Dataset(
    digits.features / 8 - 1, digits.targets, class_names=digits.class_names, name="digits"
)
network = nb.networks.reshaped(
    nb.networks.cnn(
        channels=(8, 16),
        kernel_size=3,
        activation="relu",
        gather=nb.networks.flatten,
        num_outputs=10,
    ),
    (8, 8, 1),
)

# This network has no kernel in closed form, so take a real one at its own parameters: its
# empirical NTK couples the ten logits. `nb.linearise(network, params, ridge=...)` keeps the
# network's own function as mean; here it is the shifted network, with mean 0.
params = network.init(jax.random.key(1), jax.numpy.asarray(data.features[:1]))
prior = nb.NTKPrior(nb.kernels.EmpiricalKernel(network, params), ridge=0.1)

# For the same at infinite width, by neural-tangents (README.md says how to install it), replace the
# network above by these lines. NUTS and FirstOrder then work too:
#
#     from ntkbayes.bridges.neural_tangents import from_stax, load
#     stax = load().stax
#     triple = stax.serial(
#         stax.Conv(1, (3, 3), padding="SAME", W_std=1.5, b_std=0.1), stax.Relu(),
#         stax.Flatten(), stax.Dense(1, W_std=1.5, b_std=0.1),
#     )
#     prior = nb.NTKPrior(nb.networks.reshaped(from_stax(triple), (8, 8, 1)), ridge=0.1)

methods = {
    "MAP": nb.MAP(),
    # real initialisations, trained in the tangent space
    "random init": nb.RandomInit(num_inits=100),
    "Laplace": nb.Laplace(),
}

study = nb.Study(data=data, prior=prior, methods=methods, standardise=False, test_share=0.3, seed=0)
