"""What happens to answers between steps: tokens are appended, copies and beams fork, answers end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import AutoGLMError, GenerationError
from openautoglm.engine.beam import BeamGroup, Step
from openautoglm.engine.choose import Chosen, as_generation_error
from openautoglm.engine.generate import Candidate
from openautoglm.engine.pages import PagePool
from openautoglm.engine.penalties import Shaper
from openautoglm.engine.request import Finish, Piece
from openautoglm.engine.schedule import Scheduler
from openautoglm.engine.sequence import Sequence, Ticket
from openautoglm.engine.stats import Counts

Float32 = NDArray[np.float32]


class Answers:
    """Keeps sequences, scheduler and tickets in step with what was chosen."""

    def __init__(self, schedule: Scheduler, pool: PagePool, counts: Counts) -> None:
        self._schedule, self._pool, self._counts = schedule, pool, counts

    def take(self, chosen: Chosen, drafts: Mapping[int, list[int]]) -> None:
        """Give every slot its tokens; end the answers that are complete."""
        rows = self._schedule.rows
        sequences, ids = list(rows.sequences), chosen.ids
        searches = self._searches(chosen) if rows.grouped else []  # before slots change
        ended: list[tuple[Sequence, Finish]] = []
        if drafts:
            self._take_drafted(sequences, chosen, drafts, ended)
        else:
            count = rows.count
            rows.lengths[:count] += 1
            rows.ids[:count] = ids
            self._counts.generated_tokens += count
            for row, (sequence, token) in enumerate(zip(sequences, ids, strict=True)):
                if sequence.plain:
                    sequence.tokens.append(token)
                    if token in sequence.stops:
                        ended.append((sequence, "stop"))
                    elif len(sequence.tokens) == sequence.end:
                        ended.append((sequence, "length"))
                elif sequence.group is None and row not in chosen.errors:
                    self._append(sequence, [token], chosen, row, ended)
        for slot, error in chosen.errors.items():
            self.fail(sequences[slot].ticket, error)
        for sequence, finish in ended:
            if sequence.slot >= 0:  # its request may have failed meanwhile
                self._end(sequence, finish)
        for first, group, logits_BV in searches:
            if not first.ticket.done:
                self._step_group(first, group, logits_BV)

    def fork(self, started: list[Sequence]) -> list[int]:
        """Make the copies of requests whose prompt was just computed; return the row of logits of every slot, or
        nothing where slots and rows are the same.

        Copies that find no slot wait in the queue.
        """
        rows = self._schedule.rows
        sources = list(range(rows.count))
        for sequence in started:
            ticket = sequence.ticket
            if sequence.group is not None or sequence.copy or sequence.generated:
                continue
            for copy in range(1, len(ticket.finishes)):
                child = Sequence(ticket, copy)
                child.started = True
                ticket.sequences.append(child)
                if copy < sequence.width:
                    self._schedule.fork(sequence, child)
                    sources.append(sequence.slot)
                else:
                    self._schedule.add(child)
            sequence.width = 1
        return sources if len(sources) > len(set(sources)) else []

    def stop(self, ticket: Ticket, finish: Finish) -> None:
        """End all answers of a request with what they have."""
        for sequence in list(ticket.sequences):
            if sequence.ticket.done:
                break
            if sequence.group is not None:
                self._end_group(sequence, finish)
            else:
                self._end(sequence, finish)
        for copy, known in enumerate(ticket.finishes):
            if known is None:  # its sequence has not begun
                self._close(ticket, copy, Candidate((), 0.0, False), finish)

    def fail(self, ticket: Ticket, error: AutoGLMError) -> None:
        """End all answers of a request with an error."""
        if ticket.done:
            return
        ticket.error = error
        for sequence in ticket.sequences:
            self._schedule.remove(sequence)
        ticket.sequences.clear()
        for copy, known in enumerate(ticket.finishes):
            if known is None:
                ticket.end(copy, Candidate((), 0.0, False), "error")
        self._counts.failed += 1
        if ticket.listener is not None:
            _tell(ticket, Piece(0, (), finish="error"))

    def _take_drafted(self, sequences: list[Sequence], chosen: Chosen, drafts: Mapping[int, list[int]],
                      ended: list[tuple[Sequence, Finish]]) -> None:
        rows, first = self._schedule.rows, 0
        for slot, sequence in enumerate(sequences):
            draft = drafts.get(slot, [])
            accepted = 0
            while accepted < len(draft) and chosen.ids[first + accepted] == draft[accepted]:
                accepted += 1
            if sequence.group is not None:
                rows.lengths[slot] += 1
            elif slot not in chosen.errors:
                before = len(sequence.tokens)
                self._append(sequence, chosen.ids[first:first + accepted + 1], chosen, first, ended)
                added = len(sequence.tokens) - before
                rows.lengths[slot] += added
                rows.ids[slot] = sequence.tokens[-1]
                self._counts.generated_tokens += added
            if draft and sequence.lookup is not None:
                sequence.lookup.judge(len(draft), accepted, len(sequence.tokens))
                self._counts.drafted += len(draft)
                self._counts.accepted += accepted
            first += 1 + len(draft)

    def _append(self, sequence: Sequence, ids: list[int], chosen: Chosen, row: int,
                ended: list[tuple[Sequence, Finish]]) -> None:
        """Append tokens one by one until the answer ends; report them."""
        finish: Finish | None = None
        kept = 0
        try:
            for place, token in enumerate(ids):
                sequence.tokens.append(token)
                if chosen.logprobs is not None:
                    sequence.logprob += chosen.logprobs[row + place]
                finish = self._finish_after(sequence, token)
                kept += token not in sequence.stops
                if finish is not None:
                    break
            if sequence.ticket.listener is not None:
                self._report(sequence, ids[:place + 1], kept, chosen, row, finish)
        except Exception as error:  # a watcher, a listener or a grammar failed; the fault stays with its request
            chosen.errors[sequence.slot] = as_generation_error(error, sequence)
            return
        if finish is not None:
            ended.append((sequence, finish))

    def _finish_after(self, sequence: Sequence, token: int) -> Finish | None:
        if token in sequence.stops:
            return "stop"
        if sequence.shaper is not None and not sequence.shaper.push(token):
            raise GenerationError(f"the grammar's mask allowed id {token}, the grammar does not",
                                  where=f"request {sequence.ticket.number}", remedy="report the grammar as a fault")
        if sequence.watcher is not None and sequence.watcher(token):
            return "stop"
        if sequence.shaper is not None and sequence.shaper.ended:
            return "stop"
        return "length" if len(sequence.tokens) == sequence.end else None

    def _report(self, sequence: Sequence, ids: list[int], kept: int, chosen: Chosen, row: int,
                finish: Finish | None) -> None:
        logprobs: tuple[float, ...] = ()
        alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
        if sequence.alternatives is not None and chosen.logprobs is not None:
            logprobs = tuple(chosen.logprobs[row:row + len(ids)])
            alternatives = tuple(chosen.alternatives(row + place, sequence.alternatives) for place in range(len(ids)))
        if sequence.ticket.listener is not None:
            sequence.ticket.listener(Piece(sequence.copy, tuple(ids[:kept]), logprobs, alternatives, finish,
                                           sequence.ticket.waited()))

    def _end(self, sequence: Sequence, finish: Finish) -> None:
        ids = sequence.tokens[sequence.prompt_tokens:]
        if ids and ids[-1] in sequence.stops:
            ids.pop()
        ticket = sequence.ticket
        self._schedule.remove(sequence)
        ticket.sequences.remove(sequence)
        self._close(ticket, sequence.copy, Candidate(tuple(ids), sequence.logprob, finish == "stop"), finish)

    def _close(self, ticket: Ticket, copy: int, candidate: Candidate, finish: Finish) -> None:
        ticket.end(copy, candidate, finish)
        if ticket.done:
            well = finish in ("stop", "length")
            self._counts.finished += well
            self._counts.cancelled += not well
        if finish not in ("stop", "length") and ticket.listener is not None:
            _tell(ticket, Piece(copy, (), finish=finish))

    def _searches(self, chosen: Chosen) -> list[tuple[Sequence, BeamGroup[Sequence], Float32]]:
        """The searches that have slots: first beam, search, and the logits of its beams."""
        found = []
        for sequence in self._schedule.rows.sequences:
            group = sequence.group
            if group is not None and sequence is group.members[0]:
                found.append((sequence, group, chosen.logits[[member.slot for member in group.members]]))
        return found

    def _step_group(self, first: Sequence, group: BeamGroup[Sequence], logits_BV: Float32) -> None:
        try:
            step = group.advance(logits_BV)
            if group.done:
                self._end_group(first, None)
            else:
                self._follow(first, group, step)
        except Exception as error:  # a grammar failed; the fault stays with its request
            self.fail(first.ticket, as_generation_error(error, first))

    def _follow(self, first: Sequence, group: BeamGroup[Sequence], step: Step) -> None:
        """Let each beam go on from its parent: the first of a parent's children takes its pages, others share them."""
        rows, length = self._schedule.rows, len(first.tokens)
        members = group.members
        shapers = _shapers_of(members, step)
        while len(members) < len(step.parents):
            child = Sequence(first.ticket, len(members))
            child.group = group
            first.ticket.sequences.append(child)
            members.append(child)
        old = [(member.tokens, member.pages, member.keys, member.sealed) for member in members]
        heirs = set(step.parents)
        for member, parent, token in zip(members, step.parents, step.tokens, strict=True):
            tokens, pages, keys, sealed = old[parent]
            member.tokens = [*tokens, token]
            member.keys, member.sealed = list(keys), sealed
            if parent in heirs:
                heirs.discard(parent)
                member.pages = pages
            else:
                member.pages = pages[:-(-length // self._pool.page_size)]
                self._pool.share(member.pages)
        for parent in set(range(len(old))).difference(step.parents):
            self._pool.release(old[parent][1])
        for member, shaper in zip(members, shapers, strict=True):
            member.width, member.shaper = 1, shaper
            if member.slot < 0:
                rows.add(member)
            rows.refresh(member, length)

    def _end_group(self, first: Sequence, finish: Finish | None) -> None:
        group, ticket = first.group, first.ticket
        if group is None:
            return
        best = group.best()
        for member in list(ticket.sequences):
            self._schedule.remove(member)
        ticket.sequences.clear()
        for copy in range(len(ticket.finishes)):
            candidate = best[copy] if copy < len(best) else Candidate((), float("-inf"), False)
            why: Finish = finish or ("stop" if candidate.finished else "length")
            self._close(ticket, copy, candidate, why)
            if finish is None and ticket.listener is not None:
                logprobs = (candidate.logprob,) if candidate.logprob > float("-inf") else ()
                _tell(ticket, Piece(copy, candidate.ids, logprobs, (), why, ticket.waited()))


def _shapers_of(members: list[Sequence], step: Step) -> list[Shaper | None]:
    """The shapers of beams after a step. A token that a grammar does not allow belongs to a beam that cannot win."""
    shapers: list[Shaper | None] = []
    for number, (parent, token) in enumerate(zip(step.parents, step.tokens, strict=True)):
        shaper = members[parent].shaper
        if shaper is not None and parent in step.parents[number + 1:]:
            shaper = shaper.fork()  # the last heir takes it as it is
        if shaper is not None:
            shaper.push(token)
        shapers.append(shaper)
    return shapers


def _tell(ticket: Ticket, piece: Piece) -> None:
    """Report an end to a listener, which is foreign code: its fault becomes the request's own."""
    if ticket.listener is None:
        return
    try:
        ticket.listener(piece)
    except Exception as error:
        ticket.listener = None
        ticket.error = ticket.error or GenerationError(f"the listener failed: {error!r}",
                                                       where=f"request {ticket.number}",
                                                       remedy="see the listener's own code")
