# SPDX-License-Identifier: Apache-2.0
"""Every error freehold raises on purpose.

    FreeholdError
    ├── UserError                  the user can mend it; the CLI prints one sentence, exit code 2
    │   ├── ModelNotFoundError     no such file or directory, or nothing loadable in it
    │   ├── MalformedFileError     a model file contradicts itself or its format
    │   ├── UnsupportedModelError  well-formed, but an architecture, type or tokenizer we lack
    │   ├── TokenizerError         the vocabulary cannot be used as declared
    │   ├── TemplateError          a chat template failed, or broke its limits
    │   ├── InvalidParameterError  a number or option outside its meaning
    │   │   └── ConstraintError    a form of answer that cannot be kept: impossible or too complex
    │   ├── ContextLengthError     more tokens than the context holds
    │   ├── DocumentError          a document that cannot be read; others of its job go on
    │   │   ├── UnsupportedDocumentError  no reader for this kind of file
    │   │   ├── MalformedDocumentError    its bytes contradict its kind
    │   │   ├── EncryptedDocumentError    it wants a password
    │   │   ├── EmptyDocumentError        read whole, and there is no text in it, as in a scan
    │   │   ├── DocumentTooLargeError     more than the reader's limits allow
    │   │   └── ReaderCrashError          the process that read it died of it
    │   ├── AnswerError            the model's answer does not have the form that was asked for
    │   ├── JobError               a job cannot be started, found or gone on with
    │   ├── StoreError             the store of models cannot do what was asked
    │   ├── DownloadError          a file could not be fetched; what has come is kept to go on from
    │   │   └── IntegrityError     bytes came that are not the ones that were promised
    │   └── PolicyError            this house's policy forbids the model
    ├── CapacityError              memory or blocks ran out
    └── EngineError                a broken invariant inside freehold: a bug, please report

`message` is one sentence without a trailing full stop; `hint` says what to do instead.
"""

from __future__ import annotations

from collections.abc import Mapping


class FreeholdError(Exception):
    """Base of all errors raised on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


class UserError(FreeholdError):
    """Something the caller can put right."""


class ModelNotFoundError(UserError):
    """The path holds no model."""


class MalformedFileError(UserError):
    """A file breaks its own format. The message names the file and the offending field."""


class UnsupportedModelError(UserError):
    """The file is sound but needs something freehold does not have."""


class TokenizerError(UserError):
    """The vocabulary or its settings cannot be used."""


class TemplateError(UserError):
    """A chat template could not be rendered within its limits."""


class InvalidParameterError(UserError, ValueError):
    """A parameter outside its meaning."""


class ConstraintError(InvalidParameterError):
    """The form an answer should have is malformed, impossible, not supported or too complex."""


class ContextLengthError(UserError, ValueError):
    """The request needs more positions than the context holds."""


class DocumentError(UserError):
    """A document could not be read. Stands for that document alone."""


class UnsupportedDocumentError(DocumentError):
    """No reader for this kind of file."""


class MalformedDocumentError(DocumentError):
    """The bytes are not what the name says."""


class EncryptedDocumentError(DocumentError):
    """The document cannot be read without a password."""


class EmptyDocumentError(DocumentError):
    """The document was read whole and holds no text. Pictures of text are not text."""


class DocumentTooLargeError(DocumentError):
    """Beyond a limit of the reader: size, memory or time. The message names the limit."""


class ReaderCrashError(DocumentError):
    """The process that read the document died of it. Others of the job go on in a new one."""


class AnswerError(UserError):
    """A model answered in another form than the task asks for. Stands for that answer alone."""


class JobError(UserError):
    """A job of documents cannot be started, found or gone on with."""


class StoreError(UserError):
    """The store of downloaded models cannot do what was asked."""


class DownloadError(UserError):
    """A file could not be fetched. What has come already is kept, so that the next try goes on."""


class IntegrityError(DownloadError):
    """Bytes came that are not the ones that were promised: another size or digest."""


class PolicyError(UserError):
    """The policy of this machine forbids the model. `reason` says why, for machines."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        reason: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = dict(reason or {})


class CapacityError(FreeholdError):
    """Memory or cache blocks ran out."""


class EngineError(FreeholdError):
    """An internal invariant broke."""
