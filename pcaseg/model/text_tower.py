"""CLIP's text tower: names of classes in, one unit vector per class and prompt out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.tokenizer import tokenize
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

from pcaseg.class_names import check_class_names, prompt_for, refuse_cut
from pcaseg.configs import CONTEXT_LENGTH, Preset
from pcaseg.model.fingerprint import tensors_sha256
from pcaseg.model.precision import unit_norm

VOCABULARY_TOKENS = 49408


class TextTower(nn.Module):
    """open_clip's text transformer; GELU with EVA02's weights, QuickGELU with OpenAI's."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.transformer = TextTransformer(
            context_length=CONTEXT_LENGTH,
            vocab_size=VOCABULARY_TOKENS,
            width=preset.text_width,
            heads=preset.text_heads,
            layers=preset.text_layers,
            output_dim=preset.embed_dim,
            act_layer=nn.GELU if preset.family == "eva" else QuickGELU,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Encodes token ids.

        The feature at the end-of-text token (the highest id of a row) is taken by a gather, which exports
        without an index range; open_clip's own pooling does not.

        Args:
            tokens: (N, L) int64, L from the longest prompt's end to 77: a token sees those before it only, so what
                follows the end changes nothing but the cost.

        Returns:
            (N, D) float, unit norm.
        """
        text = self.transformer
        length = tokens.shape[1]
        x = text.token_embedding(tokens) + text.positional_embedding[:length]
        x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
        end = tokens.argmax(dim=-1)[:, None, None].expand(-1, 1, x.shape[-1])
        return unit_norm(x.gather(1, end)[:, 0] @ text.text_projection, dim=-1)

    def fingerprint(self) -> str:
        """SHA-256 of the tower's weights: embeddings of another fingerprint do not fit."""
        return tensors_sha256(self.state_dict())

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Encodes whole prompts.

        Returns:
            (P, D) float, unit norm.

        Raises:
            VocabularyError: a prompt is too long.
        """
        return self._encode(_prompt_tokens(prompts, prompts), batch_size)

    @torch.no_grad()
    def encode_names(self, names: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Encodes class names through the published prompt.

        Returns:
            (T, 1, D) float, unit norm.

        Raises:
            VocabularyError: as `check_class_names`, or a prompt is too long.
        """
        return self._encode(_tokens(names), batch_size)[:, None]

    def _encode(self, tokens: Tensor, batch_size: int) -> Tensor:
        device = self.transformer.positional_embedding.device
        return torch.cat([self(batch.to(device)) for batch in tokens.split(batch_size)])


def name_tokens(names: Sequence[str], *, source: str = "class list") -> Tensor:
    """Tokens of the names' prompts, cut to the longest: (T, L) int64; `source` is what messages call the list.

    Raises:
        VocabularyError: as `check_class_names`, or a prompt is too long.
    """
    tokens = _tokens(names, source)
    result: Tensor = tokens[:, : int(tokens.argmax(dim=-1).max()) + 1]  # the end has the highest id
    return result


def _tokens(names: Sequence[str], source: str = "class list") -> Tensor:
    """(T, 77) int64."""
    names = check_class_names(names, source=source)
    return _prompt_tokens([prompt_for(name) for name in names], names, source)


def _prompt_tokens(prompts: Sequence[str], names: Sequence[str], source: str = "class list") -> Tensor:
    """(P, 77) int64; names are what messages call the prompts."""
    tokens: Tensor = tokenize(list(prompts), context_length=CONTEXT_LENGTH + 1)
    refuse_cut(names, tokens[:, CONTEXT_LENGTH].nonzero().flatten().tolist(), source=source)
    return tokens[:, :CONTEXT_LENGTH]
