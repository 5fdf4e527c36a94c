"""Every error of the platform, in one tree.

TorporError
├── UserError                 text fit to show; has a stable code, an HTTP status and a next step
│   ├── InvalidRequest        422  a field is wrong (``pointer`` names it)
│   ├── Unauthenticated       401
│   ├── Forbidden             403  seen, but not permitted
│   ├── NotFound              404  absent, or not to be seen
│   ├── Conflict              409  the object is not in a state that allows this
│   │   ├── VersionConflict   412  the object changed since it was read
│   │   └── StaleFence        409  a newer claim or lease holder took over
│   ├── QuotaExceeded         409  a limit of the tenant or the pool
│   ├── TooLarge              413
│   ├── SourceFailed          502  a connector could not do its work; ``code`` is of a closed set
│   ├── TooManyAttempts       429
│   └── Unavailable           503  a part of the platform does not answer
├── PlatformError             logged; shown as "internal error, id …"
│   ├── LeaseLost             another controller holds the lease
│   ├── CorruptImage          an image does not read back as it was written
│   │   └── ImageMissing      an image, or a blob of it, is not there
│   ├── RegistryUnavailable   a registry does not answer, or refuses; a repeat may succeed
│   │   ├── RegistryRefused   a registry refuses the account
│   │   └── RegistryFull      a registry has no space left
│   ├── UnsafeArchive         an archive tries to leave its folder
│   ├── CaptureFailed         an environment could not be saved
│   │   ├── FileChanged       a file changed while it was read; a repeat may succeed
│   │   └── Unsettled         a live environment kept changing; freeze it first
│   ├── PlaceError            a workspace's place did not do as told
│   │   ├── PlaceUnready         it cannot do it yet; a repeat may succeed
│   │   └── EnvironmentMismatch  an environment was made for another Python than the platform's
│   ├── RunnerError           a runner did not do as told
│   ├── ClusterError          the cluster's API server did not do as told
│   │   ├── ClusterUnavailable   no answer, or none that tells: nothing is known
│   │   ├── ObjectMissing     404  there is no such object or namespace
│   │   ├── ObjectConflict    409  the object is another one than was meant, or was changed meanwhile
│   │   │   └── ObjectExists  409  an object of that name is there already
│   │   ├── ForeignNamespace     a tenant's namespace is somebody else's, or is being removed; fit to show
│   │   ├── VersionExpired    410  the changes since that version are forgotten: list again
│   │   └── Denied            403  a rule of the cluster stands in the way; fit to show
│   └── StartupError          a program cannot start; the text says what to do
└── FailpointError            raised by an armed failpoint only
"""

from __future__ import annotations


class TorporError(Exception):
    """The root of the tree."""


class UserError(TorporError):
    """An error whose text is fit to show to the user who caused it.

    ``code`` is stable and machine-readable, ``next_step`` says what to do, ``pointer`` names the field (RFC 6901).
    """

    code = "error"
    status = 400

    def __init__(self, message: str, *, next_step: str = "", pointer: str = "", **parts: object) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.pointer = pointer
        self.parts = parts


class InvalidRequest(UserError):
    """A field of the request is wrong."""

    code = "invalid_request"
    status = 422


class Unauthenticated(UserError):
    """No valid credentials came with the request."""

    code = "unauthenticated"
    status = 401


class Forbidden(UserError):
    """The actor may see the object, but not do this to it."""

    code = "forbidden"
    status = 403


class NotFound(UserError):
    """There is no such object, or the actor may not see it: the two answers are the same."""

    code = "not_found"
    status = 404


class Conflict(UserError):
    """The object is not in a state that allows this."""

    code = "conflict"
    status = 409


class VersionConflict(Conflict):
    """The object changed since it was read."""

    code = "version_conflict"
    status = 412


class StaleFence(Conflict):
    """A newer claim or holder has taken over; stop what you do."""

    code = "stale_fence"
    status = 409


class QuotaExceeded(UserError):
    """A limit of a tenant, user or pool stands in the way; ``parts`` carries limit, used and asked."""

    code = "quota_exceeded"
    status = 409


class TooLarge(UserError):
    """The body is larger than the limit that the message names."""

    code = "too_large"
    status = 413


class SourceFailed(UserError):
    """A connector could not do its work. ``code`` is a ``domain.datasets.FailureCode``."""

    status = 502

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.code = code


class TooManyAttempts(UserError):
    """Too many failed attempts; the message says when to try again."""

    code = "too_many_attempts"
    status = 429


class Unavailable(UserError):
    """A part of the platform does not answer now."""

    code = "unavailable"
    status = 503


class PlatformError(TorporError):
    """A fault of the platform: logged in full, shown as an internal error with an id."""


class LeaseLost(PlatformError):
    """Another controller holds the lease; this one must stop writing."""


class CorruptImage(PlatformError):
    """An image does not read back as it was written; the text names the blob."""


class ImageMissing(CorruptImage):
    """An image, or a blob that it names, is not there."""


class RegistryUnavailable(PlatformError):
    """A registry does not answer, or refuses; the text names it and what to do."""


class RegistryRefused(RegistryUnavailable):
    """A registry, or its token server, refuses the account; a repeat is of no use."""


class RegistryFull(RegistryUnavailable):
    """A registry has no space left for what was sent to it."""


class UnsafeArchive(PlatformError):
    """An archive names something outside of its folder, or something that must not be restored."""


class CaptureFailed(PlatformError):
    """An environment could not be saved; the text says why."""


class FileChanged(CaptureFailed):
    """A file changed, grew, shrank or vanished while it was read; the capture may be repeated."""


class Unsettled(CaptureFailed):
    """A live environment did not hold still for as long as its copy took; it must be frozen first."""


class PlaceError(PlatformError):
    """The place where a workspace runs did not do as told."""


class PlaceUnready(PlaceError):
    """The place cannot do it yet; the text says what it waits for, fit to show. A repeat may succeed."""


class EnvironmentMismatch(PlaceError):
    """An environment was made for another Python than the platform's; the text names both and the way out."""


class RunnerError(PlatformError):
    """The runner of a job did not do as told."""


class ClusterError(PlatformError):
    """The cluster's API server did not do as told; the text names the object and gives the server's own words."""


class ClusterUnavailable(ClusterError):
    """The API server gave no answer, or none that tells. Whether a change was made is unknown."""


class ObjectMissing(ClusterError):
    """There is no such object, or no such namespace."""


class ObjectConflict(ClusterError):
    """The object is another one than was meant (its UID differs), or was changed since it was read."""


class ObjectExists(ObjectConflict):
    """An object of that name is there already."""


class ForeignNamespace(ClusterError):
    """A tenant's namespace is somebody else's, or is being removed; the text says what to do, fit to show."""


class VersionExpired(ClusterError):
    """The API server has forgotten the changes since that resource version; list again."""


class Denied(ClusterError):
    """A rule of the cluster forbids it: quota, limit range, Pod Security, policy or a missing right.

    ``str()`` is one sentence fit to show, ``next_step`` says what to do, ``reason`` is stable; ``answer`` holds the API
    server's own words, for the log.
    """

    def __init__(self, message: str, *, reason: str, next_step: str, answer: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.next_step = next_step
        self.answer = answer


class StartupError(PlatformError):
    """A program cannot start; the text names the cause and the remedy."""


class FailpointError(TorporError):
    """Raised by an armed failpoint, never in normal operation."""
