r"""A language model as a policy over the answers of a task: the probability of every action, with its gradient.

An answer is a text. Its action is the sequence of tokens y₁, ..., y_m that the tokenizer turns it into, the end token
included; every other completion, other spellings of an answer in tokens among them, is malformed, the last action.
Teacher forcing gives the policy, Statement 18 of ``pmdtheory/theorems/README.md``:

.. math:: π(y|x) = ∏_t π(y_t | x, y_1, …, y_{t−1}) .

The beginnings of the answers form a trie. It is packed into one sequence behind its prompt: a token sees the prompt,
its ancestors and itself, and has the position it has in its own completion, so that one forward pass scores all
answers. The probability of the malformed action is the sum over all ways to leave the trie: no subtraction, and
accurate where it is tiny.

Of a large network the last `blocks` may be trained alone. What the blocks below compute of a prompt never changes: it
is computed once and kept.
"""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ..rollout import encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Policy", "Trie"]


class Trie:
    """The beginnings of answers, each a sequence of tokens that is no beginning of another; tensors on a device.

    Examples
    --------
    >>> trie = Trie([(5, 0), (5, 6, 0), (7, 0)])
    >>> trie.tokens, trie.depths  # of the beginnings 5, 7 and 5 6
    ([5, 7, 6], [1, 1, 2])
    """

    def __init__(self, answers: Any, device: Any = "cpu"):
        answers = [tuple(answer) for answer in answers]
        lengths = range(max(map(len, answers)))
        beginnings = dict.fromkeys(answer[:n] for n in lengths for answer in answers if n < len(answer))
        ambiguous = [answer for answer in answers if answer in beginnings or answers.count(answer) > 1]
        if ambiguous:
            raise ValueError(
                "answers must be different sequences of tokens, none the beginning of another, got "
                f"{list(ambiguous[0])} more than once: choose answers that the tokenizer tells apart."
            )
        self.answers, self.size = answers, len(beginnings)
        nodes = {beginning: index for index, beginning in enumerate(beginnings)}
        edges = [*beginnings, *answers][1:]
        self.tokens = [edge[-1] for edge in edges[: self.size - 1]]
        self.depths = [len(edge) for edge in edges[: self.size - 1]]
        numbers = {edge: index for index, edge in enumerate(edges)}
        paths = torch.zeros(self.size + len(answers), len(edges), dtype=torch.float64)
        for row, sequence in enumerate([*beginnings, *answers]):
            paths[row, [numbers[sequence[: n + 1]] for n in range(len(sequence))]] = 1
        self.paths = paths.to(device)
        self.parents = torch.tensor([nodes[edge[:-1]] for edge in edges], device=device)
        self.ends = torch.tensor([edge[-1] for edge in edges], device=device)
        self.children = self.parents == torch.arange(self.size, device=device)[:, None]
        self.ancestors = self.paths[1 : self.size, : self.size - 1].bool()

    def log_policy(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log π of every answer and of the malformed action, float64 (P, K), from logits (P, nodes, V)."""
        logits = logits.double()
        chosen = logits[:, self.parents, self.ends]
        others = logits.clone()
        others[:, self.parents, self.ends] = -torch.inf
        leaving = others.logsumexp(-1)
        staying = chosen[:, None].masked_fill(~self.children, -torch.inf).logsumexp(-1)
        total = torch.logaddexp(leaving, staying)
        reached, answers = ((chosen - total[:, self.parents]) @ self.paths.T).split([self.size, len(self.answers)], 1)
        return torch.cat([answers, (reached + leaving - total).logsumexp(1, keepdim=True)], 1)


class Policy:
    """A network as a policy over the actions of a task.

    Parameters
    ----------
    model, tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        A causal language model whose attention accepts a boolean mask of four dimensions, as ``sdpa`` does; a tokenizer
        with an end-of-sequence token.
    task
        Its ``answers`` are K − 1 texts; ``prompts(numbers)`` and ``rewards(numbers, kind)`` are those of numbers below
        ``size``.
    blocks : int
        How many blocks are trained, the last ones; 0 for the whole network, its embeddings included. The other
        parameters of `model` cease to require a gradient.

    Raises
    ------
    ValueError
        The tokenizer does not tell the answers apart, the network has fewer blocks, or does not hold them in a list.
    """

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", task: Any, blocks: int = 0):
        self.model, self.tokenizer, self.task, self.blocks = model, tokenizer, task, blocks
        texts = tokenizer(list(task.answers), add_special_tokens=False).input_ids
        self.trie = Trie([(*ids, tokenizer.eos_token_id) for ids in texts], model.device)
        *_, stack = self._stack()
        count = len(stack)
        if blocks > count:
            raise ValueError(f"blocks must be at most {count}, the number that the model has, got {blocks}.")
        self._kept = {}  # hidden states of the packed sequences, by prompt
        model.requires_grad_(not blocks)
        for block in stack[count - blocks :]:
            block.requires_grad_(True)

    @property
    def trained(self) -> list[Any]:
        """The parameters that are trained."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def max_new_tokens(self) -> int:
        """Length of the longest answer."""
        return max(map(len, self.trie.answers))

    def copy(self) -> "Policy":
        """Return a copy that can be trained by itself; what is not trained is shared."""
        frozen = {id(parameter): parameter for parameter in self.model.parameters() if not parameter.requires_grad}
        twin = copy.copy(self)
        twin.model = copy.deepcopy(self.model, frozen)
        return twin

    def __call__(self, prompts):
        """Return the log-probability of every action, a float64 tensor (P, K) on the CPU in nats, with its gradient.

        Rows sum to 1 within rounding.
        """
        return self.trie.log_policy(self._logits(prompts)).cpu()

    def actions(self, rollouts: Any) -> torch.Tensor:
        """Return the action of each of B completions, an int array (B,)."""
        known = {answer: action for action, answer in enumerate(self.trie.answers)}
        rows = [row[mask].tolist() for row, mask in zip(rollouts.tokens.cpu(), rollouts.mask.cpu())]
        return np.array([known.get(tuple(row), len(known)) for row in rows])

    def packed(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """Prompts, padded on the left, each with the trie behind it: what the model is called with.

        Of prompts of one length mask and positions are the same, a single row.
        """
        return self._packed(self._rows(prompts))

    def _rows(self, prompts):
        return encode(self.tokenizer, prompts, "off")

    def _logits(self, prompts):
        """Logits at the end of each prompt and at every token of the trie, (P, nodes, V)."""
        rows = self._rows(prompts)
        if not self.blocks:
            return self._run(rows)[0]
        missing = {prompt: row for prompt, row in zip(prompts, rows) if prompt not in self._kept}
        if missing:
            with torch.no_grad():
                hidden = self._run(list(missing.values()), keep=1)[1]
            for states, (prompt, row) in zip(hidden, missing.items()):
                self._kept[prompt] = states[-len(row) - self.trie.size + 1 :].clone()
        hidden = pad_sequence([self._kept[prompt] for prompt in prompts], batch_first=True, padding_side="left")
        return self._run(rows, hidden)[0]

    def _run(self, rows, hidden=None, keep=None):
        """Logits at the last `keep` positions, by default the trie's, and the input of the first trained block.

        With that input given as `hidden`, the blocks below are left out.
        """
        decoder, name, blocks = self._stack()
        first, seen = len(blocks) - self.blocks if self.blocks else 0, []

        def at_first(block, inputs):
            seen.append(inputs[0])
            return None if hidden is None else (hidden, *inputs[1:])

        hook = blocks[first].register_forward_pre_hook(at_first)
        if hidden is not None:
            setattr(decoder, name, blocks[first:])
        try:
            output = self.model(**self._packed(rows), use_cache=False, logits_to_keep=keep or self.trie.size)
        finally:
            setattr(decoder, name, blocks)
            hook.remove()
        return output.logits, seen[0]

    def _packed(self, rows):
        trie, device = self.trie, self.model.device
        length = max(map(len, rows))
        pads = torch.tensor([length - len(row) for row in rows], device=device)[:, None]
        pads = pads if pads.any() else pads[:1]
        filler = self.tokenizer.eos_token_id
        ids = torch.tensor([[filler] * (length - len(row)) + row + trie.tokens for row in rows], device=device)
        places = torch.tensor([*range(length), *(length + depth - 1 for depth in trie.depths)], device=device)
        column = torch.arange(ids.shape[1], device=device)
        mask = (column <= places[:, None]) & (column < length) & (column >= pads)[:, None]
        mask[:, length:, length:] = trie.ancestors
        mask = mask | torch.eye(ids.shape[1], dtype=torch.bool, device=device)  # padding sees itself: no empty row
        return {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": (places - pads).clamp(min=0)}

    def _stack(self):
        """The module that holds the network's blocks, the name of their list in it, and the list."""
        decoder, count = self.model.base_model, self.model.config.num_hidden_layers
        for name, module in decoder.named_children():
            if isinstance(module, torch.nn.ModuleList) and len(module) == count:
                return decoder, name, module
        raise ValueError(f"model must hold its {count} blocks in one list, and a {type(self.model).__name__} does not.")
