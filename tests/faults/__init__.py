"""Faults between a client and a server, and the ways in which a program ends.

Each kind of leak or harm, and where its absence is proved, below ``tests/``. In brackets: on what,
where it can matter. The wires are the direct one and the session's, the loops asyncio's, uvloop's,
and asyncio's with eager tasks; what has no brackets happens above all of them.

- a way out gives what was sent no time (both wires, a lent session, all loops):
  faults/test_ways_out.py, process/, cli/, examples/
- a program ends and closes nothing (both kinds of loops; in a thread, at rest, closed):
  process/test_unclosed.py, unit/test_remains.py
- a lent session is closed before its client (both wires):
  faults/test_connections.py
- a signal strikes between two steps (both wires, both kinds of loops):
  process/test_struck.py, unit/test_strikes.py
- a caller leaves without a word (both wires, a lent session, all loops):
  faults/test_ways_out.py, faults/test_cancellation.py, examples/test_backends.py
- a block or fleet is held beyond its client or loop (both wires, all loops):
  fleet/test_client_first.py, faults/test_ways_out.py
- a caller's short deadline ends the client's knowledge (both wires, all loops):
  unit/test_client.py, faults/test_cancellation.py
- an answer is thrown away after a stall (both wires, a lent session, all loops):
  process/test_callers.py (frozen), unit/test_transport.py
- what is settled keeps a slot, row, budget or permit:
  fleet/test_late.py, settling/test_fleet.py, settling/test_cost.py
- a session that is over as it comes is handed out:
  unit/test_client.py, fleet/test_late.py
- a failed stop is given up:
  unit/test_seen_through.py
- what was not sent goes out for nobody (both wires, all loops):
  faults/test_ways_out.py, fleet/test_late.py
- a connection is used that the server has closed (both wires, a lent session):
  faults/test_connections.py
- an answer is hidden: large head, cut body, UTF-16 (both wires, a lent session):
  faults/test_connections.py, unit/test_wire.py
- a call waits for other people's threads (both wires):
  faults/test_connections.py
- a hook breaks a call:
  unit/test_client.py, unit/test_bad_input.py, fleet/test_ends.py, fleet/test_watchdog.py
- what a server says stalls, garbles or leaks (both wires, a lent session, all loops):
  unit/test_wire.py, unit/test_shown.py, security/test_secrets.py, faults/test_matrix.py
- bad input gets as far as the wire:
  unit/test_bad_input.py, unit/test_checks.py
- a proxy's refusal is repeated; credentials meet (both wires, a lent session):
  faults/test_connections.py, faults/test_setup.py
- recorders and monitors break (a lent session):
  unit/test_transport.py
- a waiter is not woken:
  unit/test_queue.py, unit/test_waiting.py, unit/test_client.py
- any of these, by chance and in numbers (both wires):
  property/, settling/test_simulation.py, bench/soak.py
"""
