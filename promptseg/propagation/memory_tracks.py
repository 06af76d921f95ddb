"""Tracks that remember: their banks are filled from prompted slices and from what they answer.

The memory of Ravi et al., SAM 2, ICLR 2025, over tracks in both directions. Tracks are apart from
each other: one never recalls what another has answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from promptseg.backbones.base import Embedding, PixelPrompts
from promptseg.backbones.memory import Memory, MemoryBackbone
from promptseg.inference.caching import LRUCache
from promptseg.inference.decoder import Request, SliceDecoder, SliceMask
from promptseg.propagation.memory_bank import Bank
from promptseg.propagation.track import Track, TrackState, tensor_key
from promptseg.volume.slicing import Frame

ANCHOR_BYTES = 64 << 20
KeyMasks = Mapping[int, Mapping[int, SliceMask]]


class Rememberer:
    """Gives the tracks of one frame their banks.

    Args:
        decoder: Makes memories of answers.
        backbone: Its network.
        frame: The view of the volume.
    """

    def __init__(self, decoder: SliceDecoder, backbone: MemoryBackbone, frame: Frame) -> None:
        self.decoder, self.span, self.frame = decoder, backbone.span, frame
        self._kept: LRUCache[tuple[int, int], Memory] = LRUCache(
            ANCHOR_BYTES, lambda one: one.nbytes
        )

    def conditioning(self, track: Track, key_masks: Mapping[int, SliceMask]) -> list[int]:
        """Prompted slices that a track recalls: where it starts and ends, then the nearest.

        Those on which there is nothing of the target are not recalled.
        """
        seen = [index for index, mask in key_masks.items() if mask.area]
        seen.sort(key=lambda i: (i not in (track.start, track.stop), abs(i - track.start), i))
        return sorted(seen[: self.span.key_slices])

    def key(self, track: Track, key_masks: Mapping[int, SliceMask]) -> tuple[int, ...]:
        """Differs where what a track recalls of prompted slices differs."""
        chosen = self.conditioning(track, key_masks)
        return tuple(n for index in chosen for n in (index, tensor_key(key_masks[index])))

    def equip(self, states: Sequence[TrackState], key_masks: KeyMasks) -> None:
        """Give a bank to every track that goes on and has none."""
        bare = [state for state in states if state.active and state.bank is None]
        chosen = [self.conditioning(s.track, key_masks[s.track.target]) for s in bare]
        asked = [
            (index, key_masks[state.track.target][index])
            for state, indices in zip(bare, chosen, strict=True)
            for index in indices
        ]
        memories = iter(self._of_prompted(asked))
        count = self.frame.shape[self.frame.axis]
        for state, indices in zip(bare, chosen, strict=True):
            held = tuple((index, next(memories)) for index in indices)
            state.bank = Bank(self.span, state.track.step, count, held)

    def request(self, state: TrackState) -> Request:
        """What the network is asked on the next slice of a track."""
        memory = None if state.bank is None else state.bank.recalled(state.index)
        return Request(state.index, PixelPrompts(), self.span.ambiguous, memory=memory)

    def note(self, embedding: Embedding, states: Sequence[TrackState]) -> None:
        """Remember the last slice of every track that trusts its answer there.

        Args:
            embedding: Of these slices, one for each track.
            states: The tracks, after they took their answers.
        """
        rows = [n for n, state in enumerate(states) if state.last in state.answers]
        if not rows:
            return
        masks = [states[n].answers[states[n].last] for n in rows]
        for n, memory in zip(rows, self.decoder.remember(embedding[rows], masks), strict=True):
            bank = states[n].bank
            states[n].bank = None if bank is None else bank.added(states[n].last, memory)

    def _of_prompted(self, asked: Sequence[tuple[int, SliceMask]]) -> list[Memory]:
        """Memories of prompted slices, each made once."""
        keys = [(index, tensor_key(mask)) for index, mask in asked]
        known = {key: self._kept.get(key) for key in keys}
        found = {key: memory for key, memory in known.items() if memory is not None}
        missing = {k: mask for k, (_, mask) in zip(keys, asked, strict=True) if k not in found}
        if missing:
            embedding = self.decoder.encoder.embed(self.frame, [index for index, _ in missing])
            made = self.decoder.remember(embedding, list(missing.values()), by_user=True)
            for key, memory in zip(missing, made, strict=True):
                found[key] = memory
                self._kept.put(key, memory)
        return [found[key] for key in keys]
