"""A configuration as plain data: equal for equal configurations, in every process, else different.

Numbers, strings and containers are kept; large arrays become a digest; objects their type and fields.
Functions, and user-defined classes, become a digest of what they compute: code, default arguments,
closure and, outside of installed packages, the globals that they name, recursively. An object without
any of these is identified only by its type, and marked as `unidentified`.
"""

from ntkbayes.description.describer import UNIDENTIFIED, describe, digest, unidentified

__all__ = ["UNIDENTIFIED", "describe", "digest", "unidentified"]
