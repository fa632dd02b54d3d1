#!/bin/sh
# reap keep DIR: wait for the end of standard input, then end every process that works
# below DIR, with its children, and remove DIR. reap end DIR: the same at once; DIR stays.
# Managers of nodes and their jobs are nobody's children, so that they are found by
# where they work, and jobs of HTCondor by what they were told.
how=$1 dir=$2
trap '' HUP INT TERM
[ "$how" = keep ] && cat >/dev/null
cd /
tree() {
	for c in $(cat "/proc/$1"/task/*/children 2>/dev/null); do tree "$c"; done
	echo "$1"
}
round=0
while [ $round -lt 50 ]; do
	found=
	for p in /proc/[0-9]*; do
		case $(readlink "$p/cwd" 2>/dev/null) in
		"$dir" | "$dir"/*) found="$found $(tree "${p#/proc/}")" ;;
		esac
	done
	if [ -d "$dir/execute" ]; then
		for p in $(grep -lsF "_CONDOR_SCRATCH_DIR=$dir/" /proc/[0-9]*/environ); do
			p=${p%/environ}
			found="$found $(tree "${p#/proc/}")"
		done
	fi
	[ -n "$found" ] || break
	# shellcheck disable=SC2086 # numbers
	kill -KILL $found 2>/dev/null
	round=$((round + 1))
	[ $round -lt 3 ] || sleep 0.1
done
for n in "$dir"/d/*; do # what a node's cgroups were named after
	[ -d "$n" ] || continue
	for g in /sys/fs/cgroup/*/slurm_"${n##*/}"; do
		[ -d "$g" ] && find "$g" -depth -type d -exec rmdir {} + 2>/dev/null
	done
done
[ "$how" = keep ] && rm -rf "$dir"
exit 0
