#!/usr/bin/env bash
# demo.sh PORTOLAN: the main job from end to end. Starts a gateway on a free
# loopback port, submits hello.jsdl to it over SOAP, shows the job's history and
# output, and stops the gateway.
set -euo pipefail
portolan=$(realpath "${1:?usage: demo.sh PORTOLAN}")
here=$(cd "$(dirname "$0")" && pwd)
data=$(mktemp -d)
trap 'if [[ ${gateway_PID:-} ]]; then kill "$gateway_PID" 2>/dev/null; wait "$gateway_PID" 2>/dev/null || true; fi; rm -rf "$data"' EXIT

echo "== a gateway: portolan serve --dev"
coproc gateway { exec "$portolan" serve --dev --listen 127.0.0.1:0 --data "$data" 2>"$data/log"; }
exec 3<&"${gateway[0]}"
while read -r line <&3; do
  echo "$line"
  case $line in
    "bes: "*) export PORTOLAN_ENDPOINT=${line#bes: } ;;
    ready) break ;;
  esac
done
[[ ${line:-} == ready ]] || { cat "$data/log" >&2; exit 1; }

echo; echo "== a job: portolan submit --wait hello.jsdl"
"$portolan" submit --wait "$here/hello.jsdl"
id=$("$portolan" status -o name | head -n 1)

echo; echo "== what happened: portolan history"
"$portolan" history "$id"

echo; echo "== where it stands: portolan status"
"$portolan" status "$id"

echo; echo "== its output: portolan output"
"$portolan" output "$id"
state=$("$portolan" status -o json "$id" | sed -n 's/.*"state": *"\([^"]*\)".*/\1/p')
echo "$state"
[[ $state == Finished ]]
