"""What can go wrong, said in one line: what was found, what was expected, what to do."""


class KwsError(Exception):
    """Any failure tiny-kws explains to its user; the message is one complete line."""


class AudioError(KwsError):
    """Sound that cannot be read, or samples that cannot be used."""


class ModelError(KwsError):
    """A checkpoint or an artefact that is damaged, foreign or inconsistent."""


class DataError(KwsError):
    """A data set, an archive or a prepared folder that is missing, damaged or inconsistent."""


class UsageError(KwsError):
    """A request that makes no sense as it stands, whatever the files hold."""


def install_hint(extra: str) -> str:
    """How to install what an extra of the package brings.

    >>> install_hint("mic")
    "install it with pip install 'tiny-kws[mic]', or from a clone with pip install '.[mic]'"
    """
    return f"install it with pip install 'tiny-kws[{extra}]', or from a clone with pip install '.[{extra}]'"
