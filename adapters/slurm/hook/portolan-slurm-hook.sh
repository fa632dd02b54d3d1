#!/bin/sh
# Tells the gateway that something happened to one of its jobs, so that it need not ask
# for it. Slurm's administrator installs it once, on the controller's host:
#
#   install -D -m 755 portolan-slurm-hook.sh /var/lib/portolan-slurm/hook
#
# and in slurm.conf either (the better one: it also tells of jobs that never ran)
#
#   JobCompType=jobcomp/script
#   JobCompLoc=/var/lib/portolan-slurm/hook
#
# or, where JobCompType is taken,
#
#   EpilogSlurmctld=/var/lib/portolan-slurm/hook
#   PrologSlurmctld=/var/lib/portolan-slurm/hook
#
# It appends a line to the file "events" beside itself, which must be writable for
# SlurmUser, and which the site's setting "events" names.
name=${JOBNAME:-$SLURM_JOB_NAME}
case $name in
portolan.*) ;;
*) exit 0 ;;
esac
case $name in
*[!A-Za-z0-9.-]*) exit 0 ;;
esac
echo "${JOBID:-$SLURM_JOB_ID} ${JOBSTATE:-${SLURM_SCRIPT_CONTEXT:-end}} $name" >>"${0%/*}/events"
