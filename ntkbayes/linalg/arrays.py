"""Array types of all layers above. Shapes: n points, C outputs, S draws."""

from jaxtyping import Array, Float

Square = Float[Array, "rows rows"]
Matrix = Float[Array, "rows columns"]
Logits = Float[Array, "n classes"]
Draws = Float[Array, "draws n classes"]
PerDraw = Float[Array, " draws"]
Covariances = Float[Array, "n classes classes"]
"""A covariance, or a precision, of the logits per point."""
