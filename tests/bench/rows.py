"""What is measured: the rows of the table, the aims and floors of each, and the ratios that they are held against."""


# A row: fio's options; what is reported ('write' or 'read'; iops, or MB/s for large blocks); aims and
# floors: against pass-through, native, the bare append ('append') and vmfs without a peer ('one').
class Row:
    def __init__(self, name, title, fio, kind='write', unit='iops', **limits):
        self.name, self.title, self.fio, self.kind, self.unit = name, title, fio, kind, unit
        self.limits = limits


RANDOM = '--bs=4k --norandommap '
ROWS = [
    Row('write1', '4 KiB random write, O_DIRECT, depth 1',
        RANDOM + '--direct=1 --rw=randwrite --iodepth=1', pass_through=(0.9, 0.6), native=(3, 1.5),
        async_=(0.7, 0.45)),
    Row('write16', '4 KiB random write, O_DIRECT, depth 16',
        RANDOM + '--direct=1 --rw=randwrite --iodepth=16', pass_through=(0.9, 0.5), native=(2, 1),
        async_=(0.7, 0.45)),
    Row('fdatasync', '4 KiB random write, fdatasync after each',
        RANDOM + '--direct=0 --rw=randwrite --iodepth=1 --fdatasync=1', pass_through=(2.5, 1.5),
        native=(1.0, 0.6), append=(0.9, 0.75), async_=(0.7, 0.45), sync=(0.6, 0.4)),
    Row('fsync32', '4 KiB random write, O_DIRECT, fsync every 32',
        RANDOM + '--direct=1 --rw=randwrite --iodepth=1 --fsync=32', pass_through=(1.2, 0.8),
        native=(2, 1.2), async_=(0.7, 0.45), sync=(0.7, 0.45)),
    Row('seqwrite', '1 MiB sequential write, O_DIRECT, depth 4, half the journal',
        '--bs=1m --direct=1 --rw=write --iodepth=4', unit='MB/s', pass_through=(0.8, 0.45),
        native=(0.9, 0.5), async_=(0.7, 0.45)),
    Row('read1', '4 KiB random read, O_DIRECT, depth 1, at rest',
        RANDOM + '--direct=1 --rw=randread --iodepth=1', kind='read', pass_through=(0.95, 0.85)),
    Row('read16', '4 KiB random read, O_DIRECT, depth 16, at rest',
        RANDOM + '--direct=1 --rw=randread --iodepth=16', kind='read', pass_through=(0.95, 0.85)),
    Row('dirtyread1', 'the same, depth 1, a tenth not applied',
        RANDOM + '--direct=1 --rw=randread --iodepth=1', kind='read', pass_through=(0.8, 0.6)),
    Row('dirtyread16', 'the same, depth 16, a tenth not applied',
        RANDOM + '--direct=1 --rw=randread --iodepth=16', kind='read', pass_through=(0.8, 0.6)),
    Row('seqread', '1 MiB sequential read, O_DIRECT, depth 4',
        '--bs=1m --direct=1 --rw=read --iodepth=4', kind='read', unit='MB/s',
        pass_through=(0.95, 0.8)),
    Row('sustained', 'random writes, fsync every 32, sustained',
        RANDOM + '--direct=1 --rw=randwrite --iodepth=1 --fsync=32', native=(1.0, 1.0)),
]
# The journal's ideal: what `fdatasync` is compared with. Only native runs it.
APPEND = Row('append', 'bare append of 4 KiB and fdatasync, preallocated file',
             '--bs=4k --direct=0 --rw=write --iodepth=1 --fdatasync=1')
# With a peer these make sense; the others are one node's.
PEER_ROWS = ['fsync32', 'fdatasync', 'write1', 'write16', 'seqwrite', 'sustained']
PEER_SYSTEMS = {'async': ('async', 'off'), 'sync': ('sync', 'off'), 'semisync': ('semisync', 'off'),
                'async-tls': ('async', 'on'), 'sync-tls': ('sync', 'on')}
LAG_MAX = 64 << 20  # an async result counts only below


def ratios(results):
    """One line per aim: (row, system, against, ratio, aim, floor, why it does not count)."""
    lines = []

    def add(row, system, base_row, base, limit):
        found = results.get(row.name, {}).get(system)
        other = results.get(base_row, {}).get(base)
        if not found or not other:
            return
        ratio = found['value'] / other['value']
        spoiled = ''
        if system.startswith('async') and found['lag_bytes'] >= LAG_MAX:
            spoiled = f'lag above {LAG_MAX >> 20} MiB'
        if row.name.startswith('dirtyread') and found['unapplied_after'] == 0:
            spoiled = 'all was applied before the end'
        lines.append((row, system, base if base_row == row.name else base_row, ratio, *limit, spoiled))

    for row in ROWS:
        limits = row.limits
        if 'pass_through' in limits:
            add(row, 'vmfs', row.name, 'pass-through', limits['pass_through'])
        if 'native' in limits:
            add(row, 'vmfs', row.name, 'native', limits['native'])
        if 'append' in limits:
            add(row, 'vmfs', 'append', 'native', limits['append'])
        for name, (mode, _) in PEER_SYSTEMS.items():
            limit = limits.get({'async': 'async_', 'sync': 'sync'}.get(mode, ''))
            if limit:
                add(row, name, row.name, 'vmfs', limit)
    return lines
