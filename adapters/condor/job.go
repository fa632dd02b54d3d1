package condor

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
)

// job is what is known of one placement, derived from its files and from the event
// log. It is guarded by the book.
type job struct {
	tag   adapters.Tag
	dir   jobDir
	spec  brief
	at    ids  // at HTCondor; the zero value is not known yet
	bound bool // at is known

	phase    adapters.Phase
	reason   string
	holdCode int
	started  time.Time
	host     string
	usage    adapters.Usage
	end      *adapters.Evidence // final
	stopping bool               // a removal is on its way for a reason of ours
	missing  int                // how many audits found no trace of it
	lease    *time.Timer
	recorded time.Time // when the runner's record of the end was first seen, and HTCondor had not told of it
}

// ids are a job's number at its schedd.
type ids struct{ cluster, proc int }

func (i ids) String() string { return strconv.Itoa(i.cluster) + "." + strconv.Itoa(i.proc) }

// brief is what of a spec is kept in memory.
type brief struct {
	batch      string
	uid        int
	rerunnable bool
	deadline   time.Time
	notAfter   time.Time // the end of its lease when it was placed; zero: none
	wall       string
	submitted  time.Time
}

func (s *spec) brief() brief {
	return brief{batch: s.Batch, uid: s.UID, rerunnable: s.Rerunnable, deadline: s.Program.Deadline, notAfter: s.Program.NotAfter, wall: s.Wall, submitted: s.Submitted}
}

// handleVersion begins every handle.
const handleVersion = "condor1:"

func handle(tag adapters.Tag) adapters.Handle { return adapters.Handle(handleVersion + string(tag)) }

func parseHandle(h adapters.Handle) (adapters.Tag, error) {
	rest, ok := strings.CutPrefix(string(h), handleVersion)
	tag := adapters.Tag(rest)
	if !ok || tag.Validate() != nil {
		return "", errors.New("this is no handle of a site of type condor")
	}
	return tag, nil
}

// evidence is what may be told of the job now.
func (j *job) evidence() adapters.Evidence {
	if j.end != nil {
		return *j.end
	}
	e := adapters.Evidence{Tag: j.tag, Handle: handle(j.tag), Phase: j.phase, Reason: j.reason, Started: j.started, Usage: j.usage}
	if j.host != "" {
		e.Hosts = []string{j.host}
	}
	if j.bound {
		e.Attributes = map[string]string{"JobId": j.at.String()}
	}
	return e
}

// consequence is what an event asks the adapter to do.
type consequence uint8

const (
	nothing consequence = iota
	told                // evidence changed
	remove              // and the job must leave the queue
	unclear             // it did, and the log does not say into what
)

// apply takes an event of the job's in.
func (j *job) apply(e *event, s *Settings) consequence {
	if j.end != nil {
		return nothing
	}
	j.missing = 0
	switch e.number {
	case eventSubmit:
		j.phase = adapters.Queued
	case eventExecute:
		j.phase, j.reason, j.holdCode = adapters.Running, "", 0
		j.started = e.time()
		if _, host, ok := strings.Cut(e.text("SlotName"), "@"); ok {
			j.host = host
		}
	case eventEvicted:
		j.phase = adapters.Queued
	case eventShadow, eventReconnectFail:
		// Who cared for the job died. The job may wait again, or run on and be cared for by
		// another.
		j.phase = adapters.Unknown
		return unclear
	case eventDisconnected:
		return nothing // it runs on, as far as anybody knows
	case eventReconnected:
		j.phase = adapters.Running
	case eventImageSize:
		j.use(e)
		return nothing
	case eventSuspended:
		j.phase = adapters.Suspended
	case eventUnsuspended:
		j.phase = adapters.Running
	case eventHeld:
		code, _ := e.number64("HoldReasonCode")
		sub, _ := e.number64("HoldReasonSubCode")
		return j.held(int(code), int(sub), e.text("HoldReason"), s)
	case eventReleased:
		j.phase, j.reason, j.holdCode = adapters.Queued, "", 0
	case eventTerminated:
		j.use(e)
		j.terminated(e.yes("TerminatedNormally"), e.text("ReturnValue"), e.text("TerminatedBySignal"), e.time(), s)
	case eventAborted:
		j.removed(e.text("Reason"), e.time(), s)
	default:
		return nothing
	}
	return told
}

// held takes in that HTCondor holds the job.
func (j *job) held(code, sub int, reason string, s *Settings) consequence {
	if code == 16 { // files on their way to the schedd: nobody holds it
		j.phase = adapters.Queued
		return told
	}
	j.phase, j.holdCode = adapters.Held, code
	j.reason = "The job is held: " + describeHold(code, sub, reason)
	if s.Holds == "end" && holds[code].ends && !j.stopping {
		j.stopping = true
		if data, err := json.Marshal(stop{Reason: j.reason, Code: code}); err == nil {
			_ = writeFile(j.dir.path(nameStop), data, 0o600) // without it the removal gives HTCondor's words
		}
		return remove
	}
	return told
}

// neverRan reports whether it is certain that the program never started, and sees to
// it that it never will.
func (j *job) neverRan(s *Settings) bool {
	if s.Transfer { // no file tells it here
		return j.started.IsZero()
	}
	never, err := j.dir.withdraw()
	return err == nil && never
}

// stop is the file stop.
type stop struct {
	Reason string `json:"reason"`
	Code   int    `json:"code"`
}

// use takes in what the job used.
func (j *job) use(e *event) {
	if n, ok := e.number64("ResidentSetSize"); ok && n >= 0 && n < 1<<50 {
		j.usage.Memory = max(j.usage.Memory, n<<10)
	}
	if cpu, ok := parseUsage(e.text("RunRemoteUsage")); ok {
		j.usage.CPU = max(j.usage.CPU, cpu)
	}
}

// parseUsage reads "Usr 0 00:01:02, Sys 0 00:00:01".
func parseUsage(s string) (time.Duration, bool) {
	var d [2]int64
	var h, m, sec [2]int64
	if n, err := fmt.Sscanf(s, "Usr %d %d:%d:%d, Sys %d %d:%d:%d", &d[0], &h[0], &m[0], &sec[0], &d[1], &h[1], &m[1], &sec[1]); err != nil || n != 8 {
		return 0, false
	}
	var total time.Duration
	for i := range d {
		if d[i] < 0 || d[i] > 1<<20 || h[i] < 0 || m[i] < 0 || sec[i] < 0 || h[i] > 1<<20 || m[i] > 1<<20 || sec[i] > 1<<20 {
			return 0, false
		}
		total += time.Duration(d[i]*86400+h[i]*3600+m[i]*60+sec[i]) * time.Second
	}
	return total, true
}

// finish makes the end, of which the first stands.
func (j *job) finish(e adapters.Evidence) {
	if j.end != nil {
		return
	}
	e.Tag, e.Handle = j.tag, handle(j.tag)
	if e.Started.IsZero() && !e.NotRun {
		e.Started = j.started
	}
	if e.Ended.IsZero() {
		e.Ended = time.Now()
	}
	if e.Ended.Before(e.Started) {
		e.Ended = e.Started
	}
	if j.host != "" && !e.NotRun {
		e.Hosts = []string{j.host}
	}
	e.Usage.CPU, e.Usage.Memory = max(e.Usage.CPU, j.usage.CPU), max(e.Usage.Memory, j.usage.Memory)
	if j.bound {
		e.Attributes = map[string]string{"JobId": j.at.String()}
		if j.holdCode != 0 {
			e.Attributes["HoldReasonCode"] = strconv.Itoa(j.holdCode)
		}
	}
	e.Reason = clip(e.Reason)
	// Times are kept as they will be read again.
	e.Started, e.Ended = e.Started.Round(0).UTC(), e.Ended.Round(0).UTC()
	j.phase, j.end = e.Phase, &e
	if j.lease != nil {
		j.lease.Stop()
	}
	if data, err := json.Marshal(keep(e)); err == nil {
		_ = writeFile(j.dir.path(nameFinal), data, 0o600) // else it is concluded again
	}
}

// kept is the file final.
type kept struct {
	Version    int               `json:"version"`
	Phase      adapters.Phase    `json:"phase"`
	Status     *int              `json:"status,omitzero"`
	Signal     string            `json:"signal,omitzero"`
	Reason     string            `json:"reason,omitzero"`
	NotRun     bool              `json:"notRun,omitzero"`
	LeaseEnded bool              `json:"leaseEnded,omitzero"`
	Started    time.Time         `json:"started"`
	Ended      time.Time         `json:"ended"`
	Hosts      []string          `json:"hosts,omitzero"`
	Usage      adapters.Usage    `json:"usage"`
	Attributes map[string]string `json:"attributes,omitzero"`
}

func keep(e adapters.Evidence) kept {
	return kept{
		Version: version, Phase: e.Phase, Status: e.ExitStatus, Signal: e.Signal, Reason: e.Reason, NotRun: e.NotRun, LeaseEnded: e.LeaseEnded,
		Started: e.Started, Ended: e.Ended, Hosts: e.Hosts, Usage: e.Usage, Attributes: e.Attributes,
	}
}

// final reads the file final.
func (d jobDir) final(tag adapters.Tag) *adapters.Evidence {
	k, err := record[kept](d.path(nameFinal))
	if err != nil || k == nil || k.Version != version || !k.Phase.Final() {
		return nil
	}
	return &adapters.Evidence{
		Tag: tag, Handle: handle(tag), Phase: k.Phase, ExitStatus: k.Status, Signal: k.Signal, Reason: k.Reason, NotRun: k.NotRun, LeaseEnded: k.LeaseEnded,
		Started: k.Started, Ended: k.Ended, Hosts: k.Hosts, Usage: k.Usage, Attributes: k.Attributes,
	}
}

// own gives the end that the runner recorded; nil if there is none.
func (j *job) own() (*adapters.Evidence, *ended) {
	end, err := j.dir.ended()
	if err != nil || end == nil || end.Version != version {
		return nil, nil
	}
	e := adapters.Evidence{Started: end.Started, Ended: end.Ended, Usage: adapters.Usage{CPU: end.CPU, Memory: end.MaxRSS}}
	if end.Host != "" && j.host == "" {
		j.host = end.Host
	}
	switch {
	case end.Reason != "":
		e.Phase, e.Reason, e.NotRun = adapters.Stopped, end.Reason, end.NotRun
		e.LeaseEnded = end.LeaseEnded
	case end.Status != nil:
		e.Phase, e.ExitStatus = adapters.Exited, end.Status
	case end.Signal != "":
		e.Phase, e.Signal = adapters.Exited, end.Signal
	default:
		return nil, nil
	}
	return &e, end
}

// terminated takes in that the runner has ended by itself.
func (j *job) terminated(normally bool, status, signal string, at time.Time, set *Settings) {
	if e, end := j.own(); e != nil {
		if end.Told && e.Phase == adapters.Exited && j.dir.marked(nameCancel) {
			e.Phase, e.ExitStatus, e.Signal = adapters.Cancelled, nil, ""
		}
		j.finish(*e)
		return
	}
	e := adapters.Evidence{Phase: adapters.Stopped, Ended: at}
	n, err := strconv.Atoi(status)
	switch {
	case normally && err == nil && n == program.StatusRefused:
		e.NotRun = j.neverRan(set)
		e.Reason = "the runner could not run the job on its node: is the directory of jobs shared with it? (the setting directory, or transfer)"
	case normally && err == nil && n >= 0 && n <= 255:
		// The end could not be recorded, but the runner ends as its program did.
		e.Phase, e.ExitStatus = adapters.Exited, &n
	case !normally:
		e.Reason = "the runner was killed on its node by the signal " + signal
		if n, err := strconv.Atoi(signal); err == nil {
			e.Reason = "the runner was killed on its node by " + program.SignalName(signalNumber(n))
		}
	default:
		e.Reason = "HTCondor says that the job ended, and not how"
	}
	j.finish(e)
}

// removed takes in that the job was taken out of the queue.
func (j *job) removed(reason string, at time.Time, set *Settings) {
	own, end := j.own()
	cancelled := j.dir.marked(nameCancel)
	if own != nil && (end.Decisive() || !cancelled && !end.Told) {
		j.finish(*own) // it had ended before
		return
	}
	e := adapters.Evidence{Phase: adapters.Stopped, Ended: at}
	if own != nil {
		e.Started, e.Ended, e.Usage = own.Started, own.Ended, own.Usage
	} else {
		e.NotRun = j.neverRan(set)
	}
	s, _ := record[stop](j.dir.path(nameStop))
	switch {
	case cancelled:
		e.Phase = adapters.Cancelled
	case s != nil:
		e.Reason = s.Reason
		if s.Code == 46 || s.Code == 47 {
			e.Reason = fmt.Sprintf("WallTimeLimit: the job was stopped because it ran for more than %s seconds", j.spec.wall)
		}
	case !j.spec.deadline.IsZero() && !at.Before(j.spec.deadline):
		e.Reason = "Deadline: the job was removed because it had not ended by " + j.spec.deadline.UTC().Format(time.RFC3339)
	case !j.spec.rerunnable && strings.Contains(reason, "PeriodicRemove"):
		e.Reason = "the node on which the job ran was lost, or given to another; it is not started again, as Rerunnable does not say that it may be"
	case reason != "":
		e.Reason = "the job was removed from the queue by somebody else; HTCondor says: " + reason
	default:
		e.Reason = "the job was removed from the queue by somebody else"
	}
	j.finish(e)
}
