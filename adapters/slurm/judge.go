package slurm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// How long Slurm's word is waited with for the runner's, which comes over a shared file
// system: before a job that runs is shown to run, and before one that ended has.
const (
	startPatience = 10 * time.Second
	endPatience   = 5 * time.Second
	// How soon a job is looked at again that is about to have ended.
	completingEvery = 500 * time.Millisecond
)

// reasons puts Slurm's reasons why a job waits into words, where its user can do
// something about them or should know.
var reasons = map[string]string{
	"PartitionNodeLimit":              "it asks for more nodes than the share gives a job, and will not start; ask for fewer, or for another share",
	"PartitionTimeLimit":              "it asks for more time than the share gives a job, and will not start; ask for less, or for another share",
	"PartitionDown":                   "the share takes no jobs for now",
	"PartitionInactive":               "the share takes no jobs for now",
	"BadConstraints":                  "no node is as it asks for, and it will not start",
	"ReqNodeNotAvail":                 "a node that it needs is not available",
	"Reservation":                     "it waits for its reservation",
	"ReservationDeleted":              "its reservation is gone, and it will not start",
	"DependencyNeverSatisfied":        "what it depends on will never be, and it will not start",
	"Licenses":                        "it waits for a licence",
	"InvalidAccount":                  "its project is no account at the site, and it will not start",
	"InvalidQOS":                      "its quality of service is not the site's, and it will not start",
	"BeginTime":                       "it waits for the time before which it must not start",
	"JobHeldUser":                     "it is held",
	"JobHeldAdmin":                    "it is held by the site's administrator",
	"AccountingPolicy":                "its project has used up what the site gives it",
	"AssocMaxJobsLimit":               "its project has as many jobs as the site lets run at once",
	"QOSMaxWallDurationPerJobLimit":   "it asks for more time than its quality of service gives, and will not start",
	"QOSMaxCpuPerJobLimit":            "it asks for more CPUs than its quality of service gives, and will not start",
	"QOSMaxNodePerJobLimit":           "it asks for more nodes than its quality of service gives, and will not start",
	"AssocMaxWallDurationPerJobLimit": "it asks for more time than its project is given, and will not start",
	"NodeDown":                        "a node that it needs is down",
	"DeadLine":                        "it can't have ended by its deadline any more",
}

func waitingReason(slurm string) string {
	word, _, _ := strings.Cut(strings.Trim(slurm, "() "), ",")
	if s := reasons[word]; s != "" {
		return s
	}
	return ""
}

// judge makes evidence of what Slurm says of a member.
func (a *Adapter) judge(ctx context.Context, m *member, r *record, at time.Time) {
	a.mu.Lock()
	m.missing, m.slurm = time.Time{}, r.State
	if r.State == "PENDING" || r.State == "CONFIGURING" { // the node is yet to be ready
		m.unheard = time.Time{}
	}
	begunAs := m.begun
	a.mu.Unlock()
	e := adapters.Evidence{Phase: adapters.Queued, Attributes: jobAttributes(r)}
	switch r.State {
	case "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING", "POWER_UP_NODE", "RESV_DEL_HOLD":
		if begunAs != nil && !a.mayRestart(m, begunAs, r) {
			a.forgotten(m, r, begunAs)
			return
		}
		e.Reason = waitingReason(r.Reason)
		if r.State == "REQUEUE_HOLD" || r.State == "SPECIAL_EXIT" || strings.HasPrefix(r.Reason, "JobHeld") || strings.Contains(r.Reason, "held") {
			e.Phase = adapters.Held
			if strings.Contains(r.Reason, "launch failed") {
				a.launchFailed(ctx, m, r)
				return
			}
		}
		a.publish(m, e)
	case "RUNNING", "RESIZING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "SUSPENDED":
		if a.fromRunner(m) {
			return
		}
		if r.State == "COMPLETING" { // it is about to be said how it ended
			time.AfterFunc(min(a.settings.poll, completingEvery), a.soon)
		}
		e.Phase = adapters.Running
		if r.State == "SUSPENDED" || r.State == "STOPPED" {
			e.Phase = adapters.Suspended
		}
		e.Hosts = expand(r.Nodes)
		b := a.observe(m)
		doubted, long := false, false
		if b == nil {
			doubted, long = a.unheard(m)
		}
		switch {
		case b != nil:
			e.Started = b.Started
		case long && a.neverLaunched(m):
			return
		case !doubted && at.Sub(r.Started) > startPatience:
			e.Started = r.Started // the node does not see the spool, or is slow to show it
		case r.State == "COMPLETING":
			return // it ends before we saw it begin
		default:
			e.Phase, e.Hosts = adapters.Queued, nil
		}
		a.publish(m, e)
	default:
		if r.final() {
			a.ended(ctx, m, r, at)
			return
		}
		e.Phase, e.Err = adapters.Unknown, fail.Errorf("slurm.Status", fail.Unavailable, string(m.tag), "Slurm gives the state %s, which this gateway does not know", clipped(r.State))
		a.publish(m, e)
	}
}

// How long a job may be running, by Slurm's word, with no sign of its runner: long enough
// for what a site runs before a job (its prolog), and for a node's view of the spool to be
// renewed. After its controller was away Slurm may have such jobs that no node has, and
// is not believed that they run.
const (
	launchPatience = 15 * time.Minute
	launchDoubted  = 2 * time.Minute
)

// unheard tells of a job that Slurm has as running with no sign of its runner: whether
// that is to be doubted, and whether it has been so for too long.
func (a *Adapter) unheard(m *member) (doubted, long bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.unheard.IsZero() {
		m.unheard = time.Now()
	}
	doubted = m.unheard.Sub(a.health.Since) < doubtful || m.unheard.Sub(a.forgot).Abs() < doubtful
	patience := launchPatience
	if doubted {
		patience = launchDoubted
	}
	return doubted, time.Since(m.unheard) >= patience
}

// neverLaunched gives up a job that Slurm has as running, for ever, though no node ever
// launched it: a controller that was killed gives the numbers of jobs that it forgot to
// others, which the nodes refuse. It certainly never begins: who would begin it now finds
// it withdrawn. It gives false if it has begun after all.
func (a *Adapter) neverLaunched(m *member) bool {
	if !a.spool.job(m.tag).withdraw() {
		return false
	}
	e := adapters.Evidence{Phase: adapters.Lost, NotRun: true, Reason: "Slurm has the job as running, but its node never started it"}
	if a.wantsEnd(m) {
		e.Phase, e.Ended, e.Reason = adapters.Cancelled, time.Now(), ""
	}
	a.publish(m, e)
	a.soon() // it is ended at Slurm as one that nobody waits for
	return true
}

// forgotten is about a job that runs, or did, and that Slurm says has yet to start. A
// controller that was killed has forgotten that it started it, and it is kept from
// doing so again; or the node has failed, and Slurm would run it again, which it must
// not.
func (a *Adapter) forgotten(m *member, r *record, b *begun) {
	switch {
	case a.fromRunner(m): // it is ended at Slurm as one that nobody waits for
		a.soon()
	case r.Restarts > b.Restarts && !a.doubts(m):
		a.publish(m, adapters.Evidence{
			Phase: adapters.Lost, Started: b.Started, Attributes: jobAttributes(r),
			Reason: "the node on which the job ran has failed, or its administrator has ended it to run it again, which it must not be",
		})
		a.soon()
	default:
		a.alone(m, "Slurm has forgotten that it started the job", "")
	}
}

// doubts reports whether what Slurm says of a second start may come from a controller
// that had forgotten the first: it tried the job again, the node refused it as one that
// runs there, and so it has "restarted".
func (a *Adapter) doubts(m *member) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return m.held || time.Since(a.health.Since) < suspicious || time.Since(a.forgot) < doubtful
}

// keep keeps jobs from being started that run already: a node would refuse them, and be
// drained by Slurm for it. A controller that was killed has forgotten that it started
// them, and takes some seconds until it starts jobs again.
func (a *Adapter) keep(ctx context.Context, there []seen) {
	var ids []jobID
	var kept []*member
	for _, s := range there {
		if s.r.State != "PENDING" || strings.HasPrefix(s.r.Reason, "JobHeld") {
			continue
		}
		a.mu.Lock()
		id, held, b := s.m.id(), s.m.held, s.m.begun
		look := b == nil && time.Since(a.health.Since) < suspicious
		a.mu.Unlock()
		if look {
			b = a.observe(s.m)
		}
		if held || b == nil || s.r.Restarts > b.Restarts {
			continue
		}
		ids, kept = append(ids, id), append(kept, s.m)
	}
	if len(ids) == 0 {
		return
	}
	a.log.Warn("Slurm has forgotten that it started jobs; they are held from being started again", "site", a.name, "jobs", len(ids))
	for some := range slices.Chunk(ids, 500) {
		way, err := a.manager()
		if err == nil {
			err = way.hold(ctx, some, true)
		}
		if err != nil && !fail.Is(err, fail.Conflict) && !fail.Is(err, fail.NotFound) {
			a.unwell(err)
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range kept {
		m.held = true
	}
}

// suspicious is for how long after Slurm answers again it is looked whether jobs that it
// says wait have begun.
const suspicious = 30 * time.Second

// mayRestart reports whether Slurm is about to run the job again, as it may.
func (a *Adapter) mayRestart(m *member, b *begun, r *record) bool {
	req := m.batch.record.Request
	return req != nil && req.Requeue && r.Restarts > b.Restarts
}

// observe reads what the runner said when it began.
func (a *Adapter) observe(m *member) *begun {
	a.mu.Lock()
	b := m.begun
	again := m.batch.record.Request != nil && m.batch.record.Request.Requeue
	a.mu.Unlock()
	if b != nil && !again {
		return b
	}
	now, err := a.spool.job(m.tag).begun()
	if err != nil || now == nil || now.Withdrawn {
		return b
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	m.begun = now
	return now
}

// launchFailed deals with a job that a node refused to start, often as one of the same
// number still runs there: it is submitted again under another.
func (a *Adapter) launchFailed(ctx context.Context, m *member, r *record) {
	way, err := a.manager()
	if err != nil || a.begunNow(m) {
		return
	}
	if way.cancel(ctx, []jobID{r.ID}) == nil {
		a.again(ctx, m.batch, []*member{m})
	}
}

// runningEvidence says that the job runs, by the runner's word.
func (a *Adapter) runningEvidence(m *member, reason string) adapters.Evidence {
	e := adapters.Evidence{Phase: adapters.Running, Reason: reason}
	if b := a.observe(m); b != nil {
		e.Started = b.Started
		if b.Host != "" {
			e.Hosts = []string{b.Host}
		}
	}
	return e
}

// fromRunner ends a member by what the runner says, if that says all.
func (a *Adapter) fromRunner(m *member) bool {
	e, err := a.spool.job(m.tag).ended()
	switch {
	case err != nil || e == nil:
		return false
	case e.decisive() && (!e.terminated() || !a.wantsEnd(m)):
		a.publish(m, a.runnerEvidence(m, e))
	case (e.Told || e.terminated()) && a.wantsEnd(m): // by us
		out := a.runnerEvidence(m, e)
		out.Phase, out.ExitStatus, out.Signal, out.Reason = adapters.Cancelled, nil, "", ""
		a.publish(m, out)
	default:
		return false
	}
	return true
}

// runnerEvidence puts the runner's word of the end into ours.
func (a *Adapter) runnerEvidence(m *member, e *ended) adapters.Evidence {
	out := adapters.Evidence{
		Phase: adapters.Exited, ExitStatus: e.Status, Signal: e.Signal, Started: e.Started, Ended: e.Ended,
		Usage: adapters.Usage{CPU: e.CPU, Memory: e.MaxRSS},
	}
	if b := a.observe(m); b != nil && b.Host != "" {
		out.Hosts = []string{b.Host}
	}
	if e.Reason != "" {
		out.Phase, out.ExitStatus, out.Signal, out.Reason, out.NotRun = adapters.Stopped, nil, "", e.Reason, e.NotRun
		out.LeaseEnded = e.LeaseEnded
	}
	if e.NotRun {
		out.Started = time.Time{}
	}
	return out
}

// ended makes the last evidence of a job that Slurm says has ended.
func (a *Adapter) ended(ctx context.Context, m *member, r *record, at time.Time) {
	dir := a.spool.job(m.tag)
	e, err := dir.ended()
	if err != nil {
		e = nil
	}
	b := a.observe(m)
	if e == nil && b != nil && a.wait(m, at) {
		return // the runner's word may be on its way
	}
	if e == nil && b == nil && r.State == "CANCELLED" {
		mistaken, wait := a.mistaken(m, at)
		if wait {
			return
		}
		if mistaken {
			a.log.Warn("Slurm has taken the end of a job that it had forgotten for that of a later one", "site", a.name, "job", r.ID.String())
			a.again(ctx, m.batch, []*member{m})
			return
		}
	}
	if e == nil && b == nil {
		// Slurm says that it is over: from here on nobody begins it.
		if !dir.withdraw() {
			a.soon()
			return
		}
	}
	if a.fromRunner(m) {
		return
	}
	if e == nil && b != nil && r.Status == exitRefused<<8 {
		// A second runner found that the first is not to be followed; or the first could
		// not write down how the program ended.
		a.alone(m, "the job was started once more, which it must not be", "")
		return
	}
	out := adapters.Evidence{Attributes: jobAttributes(r), Hosts: expand(r.Nodes), Started: r.Started, Ended: r.Ended}
	if e != nil {
		out.Started, out.Ended = e.Started, e.Ended
		out.Usage = adapters.Usage{CPU: e.CPU, Memory: e.MaxRSS}
	} else if b != nil {
		out.Started = b.Started
	}
	if out.Ended.IsZero() {
		out.Ended = at
	}
	if out.Ended.Before(out.Started) { // Slurm counts whole seconds
		out.Ended = out.Started
	}
	never := e == nil && b == nil
	if never {
		out.Started, out.NotRun = time.Time{}, true
	}
	out.Phase, out.Reason = a.verdict(m, r, never)
	if out.Phase == adapters.Exited {
		exit(&out, r, e)
	}
	a.publish(m, out)
}

// How long after a controller forgot jobs what it says of cancelled ones is doubted, and
// how long it takes at most to see that it forgot some.
const (
	doubtful  = 5 * time.Minute
	toBeKnown = lostAfter + 5*time.Second
)

// mistaken reports whether a job that reads as cancelled before it began may be so by
// mistake: nobody here wants it to end, and the controller has forgotten jobs whose
// numbers it gives again, members of arrays included. Whether it has is not known at
// once, which is waited for.
func (a *Adapter) mistaken(m *member, at time.Time) (mistaken, wait bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case m.cancel:
		return false, false
	case m.batch.reused || time.Since(a.forgot) < doubtful:
		return true, false
	case m.ending.IsZero():
		m.ending = at
	}
	if at.Sub(m.ending) >= toBeKnown {
		return false, false
	}
	time.AfterFunc(time.Second, a.soon)
	return false, true
}

// wait reports whether the runner's word is worth waiting for.
func (a *Adapter) wait(m *member, at time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.ending.IsZero() {
		m.ending = at
	}
	if at.Sub(m.ending) >= endPatience {
		return false
	}
	time.AfterFunc(time.Second, a.soon)
	return true
}

// verdict says what Slurm's state of a job that ended means; Exited where the program
// ended by itself.
func (a *Adapter) verdict(m *member, r *record, never bool) (adapters.Phase, string) {
	limits := a.limitsOf(m)
	switch r.State {
	case "CANCELLED":
		a.mu.Lock()
		ours, mistaken := m.cancel, m.batch.reused || time.Since(a.forgot) < doubtful
		a.mu.Unlock()
		if ours {
			return adapters.Cancelled, ""
		}
		if mistaken && !never {
			return adapters.Lost, "Slurm has ended the job though nobody here wanted that: its controller was killed, and takes the end of a job that it forgot for that of a later one with the same number"
		}
		by := "somebody at the site"
		if r.By != "" {
			by = "the account with the number " + r.By + " at the site"
		}
		return adapters.Stopped, "the job was cancelled by " + by + ", not by the gateway"
	case "TIMEOUT":
		if limits.Reservation != "" {
			return adapters.Stopped, "the program was stopped as its reservation ended, or as it ran for longer than it may"
		}
		if n, ok := limits.Limits[limitWallTime]; ok && n < unlimited {
			return adapters.Stopped, limits.over(limitWallTime, "it ran for", "seconds")
		}
		return adapters.Stopped, "WallTimeLimit: the program was stopped because it ran for longer than the site lets a job run that does not say how long it takes; ask for more with WallTimeLimit"
	case "OUT_OF_MEMORY":
		return adapters.Stopped, limits.overMemory()
	case "DEADLINE":
		return adapters.Stopped, "Deadline: the job could not have ended in time, and was removed"
	case "PREEMPTED":
		return adapters.Stopped, "the job was stopped to make room for others that come first at the site (PREEMPTED)"
	case "NODE_FAIL":
		return adapters.Lost, "the node on which the job ran has failed (NODE_FAIL)"
	case "BOOT_FAIL", "LAUNCH_FAILED":
		return adapters.Stopped, "the node could not be made ready for the job (" + r.State + ")"
	case "REVOKED":
		return adapters.Stopped, "the job was taken by another cluster (REVOKED)"
	}
	if never {
		why := "the job's script could not be started on the node"
		if w := waitingReason(r.Reason); w != "" {
			why = w
		}
		return adapters.Stopped, why + " (" + r.State + ", " + clipped(r.Reason) + ")" + a.lastWords(m)
	}
	return adapters.Exited, ""
}

// limitsOf reads what the job was limited to.
func (a *Adapter) limitsOf(m *member) *spec {
	s, err := a.readSpec(m.tag)
	if err != nil {
		return new(spec)
	}
	return s
}

// lastWords gives what the batch script complained of.
func (a *Adapter) lastWords(m *member) string {
	data, err := readBounded(a.logOf(m), maxRecord)
	if err != nil || len(data) == 0 {
		return ""
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(data), "?"))
	return ": " + text[max(0, len(text)-300):]
}

func (a *Adapter) logOf(m *member) string {
	if m.batch.record.Array {
		return a.spool.path(dirLogs, fmt.Sprintf("%s.%d", m.batch.name, m.index))
	}
	return a.spool.path(dirLogs, m.batch.name)
}

// exit fills in how the program ended, by the runner's word or else by Slurm's.
func exit(out *adapters.Evidence, r *record, e *ended) {
	if e != nil {
		out.ExitStatus, out.Signal = e.Status, e.Signal
		return
	}
	code, signal := r.Status>>8, r.Status&0x7f
	if signal == 0 && code > 128 && !r.Exact {
		out.ExitStatus = &code
		return
	}
	if signal != 0 {
		if out.Signal = unix.SignalName(syscall.Signal(signal)); out.Signal == "" {
			out.Signal = fmt.Sprintf("SIG%d", signal)
		}
		return
	}
	out.ExitStatus = &code
}

// publish passes evidence on if it is news, and writes an end down before.
func (a *Adapter) publish(m *member, e adapters.Evidence) {
	e.Tag, e.Handle = m.tag, handleOf(m.tag)
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.evidence.Phase.Final() || a.members[m.tag] != m {
		return
	}
	if e.Phase.Final() {
		if err := a.spool.job(m.tag).writeFinal(&e); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.Warn("the end of a job can't be written down", "tag", m.tag, "error", err)
		}
		a.live--
		if m.lease != nil {
			m.lease.Stop()
		}
	} else if reflect.DeepEqual(e, m.evidence) {
		return
	}
	m.evidence = e
	a.feed.Publish(e)
}

// finalRecord is the file final.
type finalRecord struct {
	Version int               `json:"version"`
	Phase   adapters.Phase    `json:"phase"`
	Status  *int              `json:"status,omitzero"`
	Signal  string            `json:"signal,omitzero"`
	Reason  string            `json:"reason,omitzero"`
	NotRun  bool              `json:"notRun,omitzero"`
	Lease   bool              `json:"leaseEnded,omitzero"`
	Started time.Time         `json:"started,omitzero"`
	Ended   time.Time         `json:"ended,omitzero"`
	Hosts   []string          `json:"hosts,omitzero"`
	CPU     time.Duration     `json:"cpu,omitzero"`
	Memory  int64             `json:"memory,omitzero"`
	Own     map[string]string `json:"attributes,omitzero"`
}

func (d jobDir) writeFinal(e *adapters.Evidence) error {
	e.Reason = clip(e.Reason)
	// What is told now is told again after a restart: to the nanosecond, in the same zone.
	e.Started, e.Ended = e.Started.Round(0), e.Ended.Round(0)
	data, err := json.Marshal(finalRecord{
		Version: specVersion, Phase: e.Phase, Status: e.ExitStatus, Signal: e.Signal, Reason: e.Reason, NotRun: e.NotRun, Lease: e.LeaseEnded,
		Started: e.Started, Ended: e.Ended, Hosts: e.Hosts[:min(len(e.Hosts), 100)], CPU: e.Usage.CPU, Memory: e.Usage.Memory, Own: e.Attributes,
	})
	if err != nil {
		return err
	}
	return writeFile(d.path(nameFinal), data, 0o600)
}

// final reads how the job ended; nil while nobody has said so.
func (d jobDir) final() (*adapters.Evidence, error) {
	data, err := readBounded(d.path(nameFinal), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f finalRecord
	if err := json.Unmarshal(data, &f); err != nil || f.Version != specVersion || !f.Phase.Final() {
		return nil, fmt.Errorf("%s can't be understood", d.path(nameFinal))
	}
	tag := adapters.Tag(d[strings.LastIndexByte(string(d), '/')+1:])
	return &adapters.Evidence{
		Tag: tag, Handle: handleOf(tag), Phase: f.Phase, ExitStatus: f.Status, Signal: f.Signal, Reason: f.Reason, NotRun: f.NotRun, LeaseEnded: f.Lease,
		Started: f.Started, Ended: f.Ended, Hosts: f.Hosts, Usage: adapters.Usage{CPU: f.CPU, Memory: f.Memory}, Attributes: f.Own,
	}, nil
}

// lastSign gives who began the job, and when they last showed that they are there, by
// their own clock.
func (d jobDir) lastSign() (*begun, time.Time, error) {
	b, err := d.begun()
	if err != nil || b == nil {
		return nil, time.Time{}, err
	}
	info, err := os.Lstat(d.path(nameStart))
	if err != nil {
		return nil, time.Time{}, err
	}
	return b, info.ModTime(), nil
}
