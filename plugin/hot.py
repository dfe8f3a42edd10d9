"""Which functions each verb normally calls, and what those import: written by `python -m tests.bench.hot`.

A name that is missing here costs a little time when it is called; one that is no more costs nothing.
"""

FUNCTIONS: dict[str, str] = {
    "ADD": """
cnictl.core.attachments: Record Record.__init__ Record._text Record.path Record.pod Record.write index_path
cnictl.core.attachments: mark_complete places read record_path
cnictl.core.bridge: BridgeMade BridgeMade.__init__ ensure_bridge give_addresses
cnictl.core.cidr: AddressError Cidr Cidr.__eq__ Cidr.__hash__ Cidr.__init__ Cidr.__str__ Cidr.address Cidr.bits
cnictl.core.cidr: Cidr.first Cidr.holds Cidr.last Cidr.network Cidr.nth Cidr.value format_address parse_address
cnictl.core.cidr: parse_cidr parse_interface parse_pod_cidr
cnictl.core.conf.addresses: _destination _place _range _range_sets _refuse_clash _route _serve _uncovered read_addresses
cnictl.core.conf.fields: cidr flag member members spelled text texts
cnictl.core.conf.network: NetConf NetConf.__init__ NetConf.gateways NetConf.served NetConf.subnets _read_link
cnictl.core.conf.network: _read_logging _read_runtime_keys interface_name_fault network_name parse_conf
cnictl.core.conf.routes: Route Route.__init__ Route.through complete
cnictl.core.digest: host_veth_name long_digest short_digest
cnictl.core.durable: _write_all contents contents_of discard ensure_regular give_name make_folder unnamed
cnictl.core.errors: CniError Problem UsageProblem
cnictl.core.host_veth: alias choose
cnictl.core.ipv6: _is_local allow await_local prepare_pod settle
cnictl.core.jsontext: JsonError _Context dumps loads
cnictl.core.leases.lease: Duplicate Exhausted Lease Taken
cnictl.core.leases.lease_store: Store Store.__init__ Store._give Store._in_step Store._last Store._modified Store._next
cnictl.core.leases.lease_store: Store._refresh Store._remember_last Store._taken Store.allocate Store.locked
cnictl.core.leases.pool: Range Range.__init__ Range.overlaps Range.size RangeSet RangeSet.__init__ RangeSet.nth
cnictl.core.leases.pool: RangeSet.offset RangeSet.places RangeSet.range_of _first_address distribute first_overlap
cnictl.core.leases.pool_map: PoolMap PoolMap.__enter__ PoolMap.__exit__ PoolMap.__init__ PoolMap._header PoolMap._parse
cnictl.core.leases.pool_map: PoolMap._place PoolMap._read PoolMap.covers PoolMap.free PoolMap.mark PoolMap.next_free
cnictl.core.leases.pool_map: PoolMap.sets PoolMap.settle _decode _encode _lowest_clear_bit _starts
cnictl.core.liveness: Verdict boot_id
cnictl.core.locks: Locked Locked.__enter__ Locked.__exit__ Locked.__init__ hold
cnictl.core.masquerade.rule_set: Masquerade Masquerade.__init__ Masquerade.comment Masquerade.digest Masquerade.families
cnictl.core.masquerade.rule_set: _nft_marks _short ensure owner stands
cnictl.core.netlink.conntrack: _delete_by_source _pick_and_delete forget
cnictl.core.netlink.messages: Netlink Netlink.__enter__ Netlink.__exit__ Netlink.__init__ Netlink._answers
cnictl.core.netlink.messages: Netlink._receive Netlink._send Netlink.call Netlink.close Netlink.dump Netlink.refusals
cnictl.core.netlink.messages: NetlinkError NetlinkError.__init__ _words attr attributes text_attr u32_attr
cnictl.core.netlink.rtnetlink: Link Link.__init__ Link.up add_address add_route add_veth_pair addresses all_addresses
cnictl.core.netlink.rtnetlink: format_mac get_link ifinfo parse_mac random_mac set_alias set_mac set_up
cnictl.core.netns: Inside Inside.__enter__ Inside.__exit__ Inside.__init__ Netns Netns.__init__ Netns.enter Netns.ours
cnictl.core.netns: Scratch _call _setns
cnictl.core.outside: cut line word
cnictl.core.programs: _is_program _path find folders
cnictl.core.result: check_version objects shape
cnictl.core.standard: open_missing
cnictl.core.sysctl: put read
cnictl_plugin.add: add
cnictl_plugin.answer: Given Given.__init__ Given.addresses Given.gateways _dns _route answer previous
cnictl_plugin.attach: NameTaken _made _pod_link _route_message activate await_up configure make_pair quiet
cnictl_plugin.attempt: Attempt Attempt.__init__ Attempt._ensure_masquerade Attempt._ensure_scoped_masquerade
cnictl_plugin.attempt: Attempt._forget_connections Attempt._give_gateways Attempt._guard_port Attempt._lease
cnictl_plugin.attempt: Attempt._make_pair Attempt._open_forwarding Attempt._set_accept_ra Attempt._set_bridge
cnictl_plugin.attempt: Attempt._write_record Attempt.make Met _intend wanted_addresses
cnictl_plugin.environment: Call Call.__init__ Call.pod _container_fault _read_args _variable calling_process
cnictl_plugin.environment: read_environment
cnictl_plugin.existing: refuse_second
cnictl_plugin.log: _append _without_parts log_call
cnictl_plugin.log_file: _Walk _Walk.__init__ _Walk._checked _Walk._descend _Walk._enter _Walk._judge _Walk._open_file
cnictl_plugin.log_file: _Walk.open _parts _same open_log
cnictl_plugin.main: _read_stdin _serve _version _write_stdout main
""",
    "CHECK": """
cnictl.core.attachments: Record Record.__init__ _is_address _parsed index_path places read record_path seize
cnictl.core.cidr: AddressError Cidr Cidr.__eq__ Cidr.__hash__ Cidr.__init__ Cidr.__str__ Cidr.address Cidr.bits
cnictl.core.cidr: Cidr.first Cidr.holds Cidr.last Cidr.network Cidr.nth Cidr.value format_address parse_address
cnictl.core.cidr: parse_cidr parse_interface parse_pod_cidr
cnictl.core.conf.addresses: _destination _place _range _range_sets _refuse_clash _route _serve _uncovered read_addresses
cnictl.core.conf.fields: cidr flag member members spelled text texts
cnictl.core.conf.network: NetConf NetConf.__init__ NetConf.served NetConf.subnets _read_link _read_logging
cnictl.core.conf.network: _read_runtime_keys interface_name_fault network_name parse_conf
cnictl.core.conf.routes: Route Route.__init__
cnictl.core.digest: short_digest
cnictl.core.durable: contents contents_of ensure_regular
cnictl.core.errors: CniError Problem UsageProblem
cnictl.core.jsontext: JsonError _Context _finite loads
cnictl.core.leases.lease: Duplicate Exhausted Lease Lease.__init__ Taken parse_owner
cnictl.core.leases.lease_store: Store Store.__init__ Store.read
cnictl.core.leases.pool: Range Range.__init__ Range.overlaps Range.size RangeSet RangeSet.__init__ _first_address
cnictl.core.leases.pool: first_overlap
cnictl.core.leases.pool_map: PoolMap
cnictl.core.locks: Locked Locked.__enter__ Locked.__exit__ Locked.__init__ hold
cnictl.core.masquerade.rule_set: Masquerade Masquerade.__init__ Masquerade.comment Masquerade.digest Masquerade.families
cnictl.core.masquerade.rule_set: _nft_marks _short owner stands
cnictl.core.netlink.kernel_routes: KernelRoute KernelRoute.__init__ KernelRoute._next_hops KernelRoute.leads_through
cnictl.core.netlink.kernel_routes: _number listed
cnictl.core.netlink.messages: Netlink Netlink.__enter__ Netlink.__exit__ Netlink.__init__ Netlink._answers
cnictl.core.netlink.messages: Netlink._receive Netlink.close Netlink.dump NetlinkError attr attributes text_attr
cnictl.core.netlink.rtnetlink: Link Link.__init__ Link.up addresses all_addresses format_mac get_link ifinfo
cnictl.core.netns: Inside Netns Netns.__init__ Netns.enter Scratch _call _setns
cnictl.core.outside: line word
cnictl.core.programs: _is_program _path find folders
cnictl.core.result: check_version objects
cnictl.core.standard: open_missing
cnictl_plugin.check: _by_destination _check _check_gateways _check_host _check_lease _check_pod _check_route
cnictl_plugin.check: _check_rules _check_settings _compare_mac _family _host_veth _metrics _promised check
cnictl_plugin.environment: Call Call.__init__ Call.pod _container_fault _read_args _variable read_environment
cnictl_plugin.log: _append _without_parts log_call
cnictl_plugin.log_file: _Walk _Walk.__init__ _Walk._checked _Walk._descend _Walk._enter _Walk._judge _Walk._open_file
cnictl_plugin.log_file: _Walk.open _parts _same open_log
cnictl_plugin.main: _read_stdin _serve _version main
""",
    "DEL": """
cnictl.core.attachments: Record Record.__init__ Record.pod _is_address _parsed index_path places read record_path remove
cnictl.core.attachments: seize
cnictl.core.cidr: AddressError Cidr Cidr.__eq__ Cidr.__hash__ Cidr.__init__ Cidr.bits Cidr.first Cidr.holds Cidr.last
cnictl.core.cidr: Cidr.network Cidr.nth Cidr.value parse_address parse_cidr parse_interface parse_pod_cidr
cnictl.core.conf.addresses: _destination _place _range _range_sets _refuse_clash _route _serve _uncovered read_addresses
cnictl.core.conf.fields: cidr flag member members spelled text texts
cnictl.core.conf.network: NetConf NetConf.__init__ NetConf.served NetConf.subnets _read_link _read_logging
cnictl.core.conf.network: _read_runtime_keys interface_name_fault network_name parse_conf
cnictl.core.conf.routes: Route Route.__init__
cnictl.core.detach: _release _remove_record detach
cnictl.core.durable: contents contents_of ensure_regular
cnictl.core.errors: CniError Problem UsageProblem
cnictl.core.host_veth: _is_of alias remove_recorded
cnictl.core.jsontext: JsonError _Context _finite loads
cnictl.core.leases.lease: Duplicate Exhausted Lease Lease.__init__ Taken parse_owner
cnictl.core.leases.lease_store: Store Store.__init__ Store._exists Store._in_step Store._last Store._modified
cnictl.core.leases.lease_store: Store._unlink Store.locked Store.read Store.release_all
cnictl.core.leases.pool: Range Range.__init__ Range.overlaps Range.size RangeSet RangeSet.__init__ RangeSet.offset
cnictl.core.leases.pool: RangeSet.places _first_address first_overlap
cnictl.core.leases.pool_map: PoolMap PoolMap.__enter__ PoolMap.__exit__ PoolMap.__init__ PoolMap._header PoolMap._parse
cnictl.core.leases.pool_map: PoolMap._place PoolMap._read PoolMap.free PoolMap.mark PoolMap.sets PoolMap.settle _decode
cnictl.core.leases.pool_map: _starts
cnictl.core.locks: Locked Locked.__enter__ Locked.__exit__ Locked.__init__ hold
cnictl.core.netlink.messages: Netlink Netlink.__enter__ Netlink.__exit__ Netlink.__init__ Netlink._answers
cnictl.core.netlink.messages: Netlink._receive Netlink.close Netlink.dump NetlinkError NetlinkError.__init__ _words attr
cnictl.core.netlink.messages: attributes text_attr
cnictl.core.netlink.rtnetlink: Link Link.__init__ format_mac get_link ifinfo
cnictl.core.outside: line word
cnictl.core.programs: _is_program _path find folders
cnictl.core.reaper: _ancestor _awaits_children collects
cnictl.core.result: check_version
cnictl.core.standard: open_missing
cnictl.core.unlinking: _ended unlink
cnictl_plugin.delete: delete
cnictl_plugin.environment: Call Call.__init__ Call.pod _container_fault _read_args _variable read_environment
cnictl_plugin.log: _append _without_parts log_call
cnictl_plugin.log_file: _Walk _Walk.__init__ _Walk._checked _Walk._descend _Walk._enter _Walk._judge _Walk._open_file
cnictl_plugin.log_file: _Walk.open _parts _same open_log
cnictl_plugin.main: _read_stdin _serve _version main
""",
}
"""By verb: lines of a module and names in it, qualified by their class."""

LATER: dict[str, str] = {
    "ADD": "_ctypes cnictl.core.ipv6 cnictl.core.netlink.conntrack cnictl.core.programs",
    "CHECK": "_ctypes cnictl.core.programs",
    "DEL": "cnictl.core.leases.lease cnictl.core.leases.lease_store cnictl.core.leases.pool_map cnictl.core.programs",
}
"""By verb: modules that functions import on their way."""
