"""The streams, each a module that `sptskm.config.STREAMS` names; docs/streams.md says how to add one."""
