"""scikit-learn: any law of an NTK prior as a classifier or a regressor, for pipelines, grid searches and
calibration.

    model = make_pipeline(StandardScaler(), NTKClassifier(law=nb.Laplace(), ridge=1.0))
    model.fit(X, y).predict_proba(X_new)

    model = NTKRegressor(law=nb.Laplace()).fit(X, y)
    mean, std = model.predict(X_new, return_std=True)

Its methods compute in float64 under any JAX setting, only in their own thread, and leave the setting
unchanged. `law_`, the law itself, needs `jax.enable_x64` like everything else in ntkbayes.
"""

from ntkbayes.bridges.sklearn.classifier import NTKClassifier
from ntkbayes.bridges.sklearn.regressor import NTKRegressor

__all__ = ["NTKClassifier", "NTKRegressor"]
