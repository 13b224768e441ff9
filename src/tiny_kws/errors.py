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
