"""The errors a user can act on.

Contract: the message of an `EdgeEftError` is shown to the user as it stands, on one line. It says
what was seen and what to do about it. Anything else that escapes is a defect of edge_eft.

    EdgeEftError
    +-- ModelFileError
    +-- RecipeError
    +-- VocabularyError
    +-- PromptError
    |   +-- ContextLengthError
    +-- RequestError
    +-- SessionError
    +-- NotEnoughMemoryError
    +-- ConversionError
    +-- HubError
    +-- ServerError
    +-- EngineError
        +-- AbortedError
        +-- GrammarError
        +-- NoTokenError
"""


class EdgeEftError(Exception):
    """Base of every error that edge_eft raises on purpose; the CLI exits with status 2 on it."""


class ModelFileError(EdgeEftError):
    """A model file is missing, damaged, not what it claims to be, or not the one expected."""


class RecipeError(EdgeEftError):
    """A recipe has an unknown key, lacks a role, or holds a value of the wrong kind."""


class VocabularyError(EdgeEftError):
    """Two models cannot be combined because their tokens differ."""


class PromptError(EdgeEftError):
    """A prompt or chat template cannot be turned into tokens, or does not fit the context."""


class ContextLengthError(PromptError):
    """A prompt is too long for the context.

    Attributes:
        n_prompt_tokens, n_ctx: its length, and the context's.
    """

    def __init__(self, message: str, n_prompt_tokens: int, n_ctx: int) -> None:
        super().__init__(message)
        self.n_prompt_tokens, self.n_ctx = n_prompt_tokens, n_ctx


class RequestError(EdgeEftError):
    """A parameter of a generation is out of its range."""


class SessionError(EdgeEftError):
    """There is no such kept conversation, or it cannot be read or removed."""


class NotEnoughMemoryError(EdgeEftError):
    """The models of a recipe do not fit together into the memory that is free."""


class ConversionError(EdgeEftError):
    """A conversion cannot start or finish; nothing is left behind."""


class HubError(EdgeEftError):
    """The Hugging Face hub cannot be reached, refuses, or has something else than was asked for."""


class ServerError(EdgeEftError):
    """The server cannot listen where it is to, or one of its options does not fit."""


class EngineError(EdgeEftError):
    """llama.cpp failed, or a model produced NaN or infinite logits.

    Attributes:
        request_id: of the request that failed alone, among others that go on; None: all failed.
    """

    request_id: int | None = None


class NoTokenError(EngineError):
    """A request's own weights or biases leave no token that could be chosen."""


class GrammarError(EngineError):
    """A request's own grammar is so ambiguous that llama.cpp takes too long to follow it."""


class AbortedError(EngineError):
    """A decode was stopped by `Context.abort`; the context is consistent and can go on."""
