"""What llama.cpp allocates for a model and for a context on it, worked out from the header.

Each function names the file of llama.cpp that it follows (as of llama-cpp-python 0.3.36). The sizes
of weights, KV cache and output rows are exact. The compute buffer is what a graph's allocator finds
room in, so its formula is an upper bound: for nine published shapes, fifteen contexts each, it
is 1.00 to 1.15 times what llama.cpp reserves (tests/files/test_buffers.py). What is marked
*measured* is no buffer of llama.cpp's but what its objects and ours took in resident memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .gguf_check import GGUFHeader
from .gguf_header import GGUFArray

F16_BYTES = 2.0
Q8_0_BYTES = 34 / 32  # of KV cache per element: 32 int8 and one float16 scale
N_UBATCH = 512  # llama.cpp's default: tokens of one micro-batch
CELL_STEP = 256  # llama.cpp pads the cells of a sequence to a multiple of it

# Measured, in bytes. A token's text, score and type in llama.cpp and in our tables; a merge of BPE.
BYTES_PER_TOKEN = 225
BYTES_PER_MERGE = 160
BYTES_PER_CELL = 150  # of the KV cache: position, sequences, and a node of a tree
BYTES_PER_NODE = 1650  # of the graph, which is kept three times
# Architectures whose graphs have many nodes per token (llama_context::graph_max_nodes).
_LONG_GRAPHS = {"qwen3next", "kimi-linear", "qwen35", "qwen35moe", "minimax-01", "nanbeige"}
# Tokens that recurrent layers can go back, with as many states more. Blocks of 4 and of 8 are those
# that pay on CPUs, and one state of Qwen3.5-9B takes 50 MiB.
N_RS_SEQ = 7
# Architectures for which llama.cpp can (llm_arch_supports_rs_rollback), of those that tests have.
_GO_BACK = {"lfm2", "lfm2moe", "qwen35", "qwen35moe"}
_DELTA_RULE = {"qwen35", "qwen35moe"}
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class ContextSize:
    """What a context is made for.

    Attributes:
        n_ctx: tokens per slot, before padding.
        n_slots: sequences, each with a cache of its own.
        n_outputs: most logit rows of one decode, over all slots.
        kv_bytes: bytes per element of the KV cache.
        flash_attn: whether attention's scores are never stored as a whole.
    """

    n_ctx: int
    n_slots: int
    n_outputs: int
    kv_bytes: float = Q8_0_BYTES
    flash_attn: bool = True

    @property
    def cells_per_slot(self) -> int:
        """Cells of one slot's cache."""
        return -(-self.n_ctx // CELL_STEP) * CELL_STEP


@dataclass(frozen=True)
class _Widths:
    """Elements per token of what a layer computes; the widest layer counts."""

    hidden: int
    query: int
    key: int
    heads: int
    feed_forward: int

    @classmethod
    def of(cls, header: GGUFHeader) -> _Widths:
        heads = max(*header.per_layer("attention.head_count"), 1)
        heads_kv = max(header.per_layer("attention.head_count_kv", heads), default=0)
        keys, values = _head_sizes(header)
        return cls(
            hidden=header.integer("embedding_length"),
            query=heads * max(keys, values),
            key=heads_kv * max(keys, values),
            heads=heads,
            feed_forward=max(header.per_layer("feed_forward_length"), default=0),
        )


def vocabulary(header: GGUFHeader) -> int:
    """Return the bytes of a loaded vocabulary, llama.cpp's and ours; measured."""
    merges = header.metadata.get("tokenizer.ggml.merges")
    n_merges = merges.count if isinstance(merges, GGUFArray) else 0
    return header.n_vocab * BYTES_PER_TOKEN + n_merges * BYTES_PER_MERGE


def layers_weights(header: GGUFHeader) -> tuple[int, ...]:
    """Return the bytes of each layer's tensors."""
    layers = [0] * header.n_layer
    for tensor in header.tensors:
        match = _BLOCK.match(tensor.name)
        if match and int(match[1]) < header.n_layer:
            layers[int(match[1])] += tensor.n_bytes
    return tuple(layers)


def output_weights(header: GGUFHeader) -> int:
    """Return the bytes of what turns the last layer's rows into logits."""
    name = "token_embd.weight" if is_tied(header) else "output.weight"
    return sum(t.n_bytes for t in header.tensors if t.name in {name, "output_norm.weight"})


def is_tied(header: GGUFHeader) -> bool:
    """Return whether the output's matrix is the tokens' embedding: a GPU then has a copy of it."""
    return all(tensor.name != "output.weight" for tensor in header.tensors)


def n_rs_seq(header: GGUFHeader) -> int:
    """Return how many states a sequence keeps beside its last one, in recurrent layers."""
    return N_RS_SEQ if header.architecture in _GO_BACK else 0


def layers_kv(header: GGUFHeader, size: ContextSize) -> tuple[int, ...]:
    """Return the bytes of each layer's keys and values, or of its recurrent state.

    src/llama-kv-cache.cpp, src/llama-memory-recurrent.cpp. Sliding windows are kept at full size
    (`swa_full`). llama.cpp clears the cache when it makes it, so it is resident from the start.
    """
    keys, values = _head_sizes(header)
    if f"{header.architecture}.attention.key_length_mla" in header.metadata:
        values = 0  # multi-head latent attention reads them out of the keys
    heads = header.per_layer("attention.head_count")
    # If it is not stated, every head has its own keys and values.
    heads_kv = header.per_layer("attention.head_count_kv", max(heads, default=0))
    n_cells = size.n_slots * size.cells_per_slot
    shared = header.n_layer - header.integer("attention.shared_kv_layers")
    state = _recurrent_state(header) * size.n_slots * (1 + n_rs_seq(header))
    layers = []
    for layer, (n_kv, recurrent) in enumerate(zip(heads_kv, _recurrent(header), strict=True)):
        cached = int(n_kv * (keys + values) * n_cells * size.kv_bytes) if layer < shared else 0
        layers.append(state if recurrent else cached)
    return tuple(layers)


def saved_states(header: GGUFHeader, size: ContextSize) -> int:
    """Return the bytes of the copies of recurrent states that are made before drafting."""
    if not n_rs_seq(header):
        return 0
    return sum(_recurrent(header)) * _recurrent_state(header) * size.n_slots


def graph(header: GGUFHeader, size: ContextSize, *, adapted: bool = False) -> int:
    """Return the bytes of the graph's tensors for a full micro-batch in a full context.

    The allocator gives tensors the room of those that are no longer needed, so what counts is the
    moment with the most rows alive: in the feed-forward part, in attention, or at the output.
    Which rows those are was found by varying one width at a time.

    Args:
        header: of the model.
        size: of the context.
        adapted: whether a LoRA adapter is in force, which adds rows as wide as a layer's own.
    """
    widths = _Widths.of(header)
    d, q, k = widths.hidden, widths.query, widths.key
    rotated = size.kv_bytes == Q8_0_BYTES and max(_head_sizes(header)) % 64 == 0
    n_masks = 2 if f"{header.architecture}.attention.sliding_window" in header.metadata else 1
    names = {tensor.name for tensor in header.tensors[:64]}
    post_norms = any("post_" in name and "norm" in name for name in names)
    # Those with a delta rule call post_attention_norm what is ffn_norm elsewhere.
    delta_rule = header.architecture in _DELTA_RULE
    feed_forward = _feed_forward(header, widths) + 3 * d
    if not header.integer("expert_used_count"):  # experts leave no gaps beside them
        feed_forward += (
            max(q - d, 0) + (0 if rotated else d) + (2 * d if post_norms and not delta_rule else 0)
        )
    feed_forward += max(widths.feed_forward, d) if adapted else 0
    if size.flash_attn:
        attention = 3 * d + q + max(q, (2 if rotated else 3) * k)
    else:
        attention = (3 + n_masks) * d + 2 * q + 2 * k + widths.heads * size.cells_per_slot
    attention += q if adapted else 0
    recurrent = 3 * d + 8 * header.integer("ssm.inner_size")
    if delta_rule:
        recurrent = _delta_rule(header, size, d)
    mask = n_masks * size.cells_per_slot * (1 if size.flash_attn else 2) // 2
    n_outputs = min(size.n_outputs, N_UBATCH)
    output = n_outputs * (header.n_vocab + 2 * d) + N_UBATCH * (2 * d + 128)
    rows = max(feed_forward, attention, recurrent) + mask
    if delta_rule:  # gaps, and the gate beside the scores
        rows += 512 + (0 if size.flash_attn else d)
    return 4 * max(N_UBATCH * rows, output) + 256 * n_outputs + (1 << 17)


def tables(header: GGUFHeader, size: ContextSize) -> int:
    """Return the bytes of what a decode needs beside the graph's tensors.

    The CPU's work buffer, into which the right side of a product is quantised
    (ggml/src/ggml-cpu/ggml-cpu.c, `ggml_graph_plan`), and, measured, the lists of nodes and cells.
    """
    widths = _Widths.of(header)
    used = max(1, header.integer("expert_used_count"))
    expert = header.integer("expert_feed_forward_length") * used
    widest = max(widths.feed_forward, expert, widths.query, widths.hidden)
    scratch = N_UBATCH * widest * 9 // 8 + (1 << 18)
    cells = size.n_slots * size.cells_per_slot
    return scratch + BYTES_PER_NODE * _graph_nodes(header) + BYTES_PER_CELL * cells


def logits(header: GGUFHeader, size: ContextSize) -> int:
    """Return the bytes of the output rows, and of the list of all token ids beside them.

    src/llama-context.cpp, `output_reserve`.
    """
    return (size.n_outputs + 1) * header.n_vocab * 4


def _feed_forward(header: GGUFHeader, widths: _Widths) -> int:
    """Return the elements per token that feed-forward layers hold at once: gate, up and product."""
    used = header.integer("expert_used_count")
    if not used:
        return 3 * widths.feed_forward
    expert = header.integer("expert_feed_forward_length", widths.feed_forward)
    shared = header.integer(
        "expert_shared_feed_forward_length",
        expert * header.integer("expert_shared_count"),
    )
    # The experts' outputs are held apart until they are weighted and added.
    experts = max(2 * used * widths.hidden + used * expert, 3 * used * expert)
    experts += 4 * header.integer("expert_count")
    return max(experts + 3 * shared, 3 * widths.feed_forward if _has_dense_layers(header) else 0)


def _delta_rule(header: GGUFHeader, size: ContextSize, d: int) -> int:
    """Return the elements per token that a gated delta rule holds at once, states among them.

    Those of all tokens that can be gone back to are outputs; a gap beside a convolution takes few.
    """
    inner, state = header.integer("ssm.inner_size"), header.integer("ssm.state_size")
    keys = header.integer("ssm.group_count") * state
    convolved = inner + 2 * keys
    states = (2 + n_rs_seq(header)) * size.n_slots * state * inner // N_UBATCH
    rows = 3 * convolved + inner + d + 2 * max(inner - keys, 0)
    return rows + (states if states > convolved else 0)


def _has_dense_layers(header: GGUFHeader) -> bool:
    return header.integer("leading_dense_block_count") > 0


def _graph_nodes(header: GGUFHeader) -> int:
    if header.architecture in _LONG_GRAPHS:
        return max(N_UBATCH * 40, 32 * len(header.tensors))
    return max(1024, 8 * len(header.tensors))


def _recurrent(header: GGUFHeader) -> tuple[bool, ...]:
    """Return of each layer whether it keeps a state instead of keys and values."""
    stated = header.metadata.get(f"{header.architecture}.attention.recurrent_layers")
    if isinstance(stated, GGUFArray) and len(stated.values) == header.n_layer:
        return tuple(map(bool, stated.values))
    if not _recurrent_state(header):
        return (False,) * header.n_layer
    interval = header.integer("full_attention_interval")
    if interval:
        return tuple((layer + 1) % interval != 0 for layer in range(header.n_layer))
    if header.architecture in {"qwen3next", "qwen35", "qwen35moe"}:
        return tuple((layer + 1) % 4 != 0 for layer in range(header.n_layer))
    return tuple(n_kv == 0 for n_kv in header.per_layer("attention.head_count_kv"))


def _recurrent_state(header: GGUFHeader) -> int:
    """Return the bytes of one sequence's state in one recurrent layer (src/llama-hparams.cpp)."""
    inner, state = header.integer("ssm.inner_size"), header.integer("ssm.state_size")
    convolved = inner + 2 * header.integer("ssm.group_count") * state
    kept = max(header.integer("ssm.conv_kernel") - 1, 0) * convolved
    short = max(header.integer("shortconv.l_cache") - 1, 0)
    return 4 * (kept + state * inner + short * header.integer("embedding_length"))


def _head_sizes(header: GGUFHeader) -> tuple[int, int]:
    """Return the elements of a head's key and value."""
    heads = header.per_layer("attention.head_count")
    size = header.integer("embedding_length") // max(*heads, 1)
    keys = header.integer("attention.key_length", size)
    return keys, header.integer("attention.value_length", size)
