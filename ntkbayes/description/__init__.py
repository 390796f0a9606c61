"""What a configuration is, as plain data: equal for equal ones, in every process, and different for
others.

Numbers, texts and containers are told as they are; large arrays by a digest; objects by their type and
fields; functions, and classes of the user's, by a digest of what they compute: code, default arguments,
closure and, outside of installed packages, the globals that they name, and so on. An object that has
none of these is identified by its type alone and marked as `unidentified`.
"""

from ntkbayes.description.describer import UNIDENTIFIED, describe, digest, unidentified

__all__ = ["UNIDENTIFIED", "describe", "digest", "unidentified"]
