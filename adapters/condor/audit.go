package condor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// ad is what the queue, or the history, tells of a job.
type ad struct {
	ClusterID     int     `json:"ClusterId"`
	ProcID        int     `json:"ProcId"`
	Status        int     `json:"JobStatus"`
	Tag           string  `json:"PortolanTag"`
	Batch         string  `json:"PortolanBatch"`
	HoldCode      int     `json:"HoldReasonCode"`
	HoldSub       int     `json:"HoldReasonSubCode"`
	HoldReason    text    `json:"HoldReason"`
	ExitCode      *int    `json:"ExitCode"`
	ExitBySignal  bool    `json:"ExitBySignal"`
	ExitSignal    int     `json:"ExitSignal"`
	RemoveReason  text    `json:"RemoveReason"`
	Completed     int64   `json:"CompletionDate"`
	Entered       int64   `json:"EnteredCurrentStatus"`
	StartedAt     int64   `json:"JobCurrentStartDate"`
	ExecutingAt   int64   `json:"JobCurrentStartExecutingDate"`
	Host          text    `json:"RemoteHost"`
	LastHost      text    `json:"LastRemoteHost"`
	ResidentSet   number  `json:"ResidentSetSize"`
	UserCPU       number  `json:"RemoteUserCpu"`
	SysCPU        number  `json:"RemoteSysCpu"`
	StageInFinish float64 `json:"StageInFinish"`
}

const adAttributes = "ClusterId,ProcId,JobStatus,PortolanTag,PortolanBatch,HoldReasonCode,HoldReasonSubCode,HoldReason,ExitCode,ExitBySignal,ExitSignal," +
	"RemoveReason,CompletionDate,EnteredCurrentStatus,JobCurrentStartDate,JobCurrentStartExecutingDate,RemoteHost,LastRemoteHost,ResidentSetSize,RemoteUserCpu,RemoteSysCpu,StageInFinish"

// text is a string, or nothing where the ad has something else.
type text string

// UnmarshalJSON reads it.
func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*t = text(s)
	}
	return nil
}

// number is a number, or 0 where the ad has an expression.
type number float64

// UnmarshalJSON reads it.
func (n *number) UnmarshalJSON(data []byte) error {
	var f float64
	if json.Unmarshal(data, &f) == nil {
		*n = number(f)
	}
	return nil
}

// parseAds reads what -json gives: a list, or nothing at all for an empty one. What is
// no ad in it is passed over.
func parseAds(data []byte) ([]ad, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("the queue's answer can't be understood: %w", err)
	}
	ads := make([]ad, 0, len(raw))
	for _, r := range raw {
		var x ad
		if json.Unmarshal(r, &x) == nil && x.ClusterID > 0 {
			ads = append(ads, x)
		}
	}
	return ads, nil
}

// ask asks the queue, or the history, for jobs of this site.
func (a *Adapter) ask(ctx context.Context, command, constraint string, more ...string) ([]ad, error) {
	args := append(a.remote(), more...)
	args = append(args, "-constraint", fmt.Sprintf("PortolanSite == %s", quote(a.id))+constraint, "-json", "-attributes", adAttributes)
	ans, err := a.run(ctx, as{}, "", command, args...)
	if err == nil && ans.code != 0 {
		err = complaint(command, ans)
	}
	if err != nil {
		return nil, err
	}
	ads, err := parseAds(ans.out)
	if err != nil {
		return nil, fail.Errorf("condor."+command, fail.Uncertain, "", "%v", err)
	}
	return ads, nil
}

// audit asks about everything that has not ended, in one request to the queue and, for
// what is not there, another to the history.
func (a *Adapter) audit(ctx context.Context) error {
	a.seeker.Lock()
	defer a.seeker.Unlock()
	b := a.book
	if !a.settings.Spool {
		b.look()
	}
	b.mu.Lock()
	b.doubt = false
	open := map[adapters.Tag]bool{}
	for tag, j := range b.jobs {
		if j.end == nil && !b.flying(j) {
			open[tag] = true
		}
	}
	b.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	again := func() {
		b.mu.Lock()
		b.doubt = true
		b.mu.Unlock()
	}
	queue, err := a.ask(ctx, "condor_q", "", "-allusers")
	if err != nil {
		again()
		return err
	}
	a.takeAds(queue, open, false)
	if a.settings.Spool {
		a.fetch(ctx, queue)
	}
	if len(open) == 0 {
		return nil
	}
	tags := slices.Sorted(maps.Keys(open))
	for len(tags) > 0 {
		n := min(len(tags), maxTags)
		var list []string
		for _, t := range tags[:n] {
			list = append(list, string(t))
		}
		past, err := a.ask(ctx, "condor_history", fmt.Sprintf(` && stringListMember(PortolanTag, "%s")`, strings.Join(list, ",")), "-limit", strconv.Itoa(2*n))
		if err != nil {
			again()
			return err
		}
		a.takeAds(past, open, true)
		tags = tags[n:]
	}
	if !a.settings.Spool {
		b.look() // an end that was written meanwhile is better than none
	}
	if a.missing(open) {
		again()
	}
	return nil
}

// flying reports whether a job is being submitted right now; under the lock.
func (b *book) flying(j *job) bool {
	x := b.batches[j.spec.batch]
	if x == nil || x.done == nil {
		return false
	}
	select {
	case <-x.done:
		return false
	default:
		return true
	}
}

// takeAds takes in what the queue or the history tells, and strikes jobs off that were
// found.
func (a *Adapter) takeAds(ads []ad, open map[adapters.Tag]bool, past bool) {
	b := a.book
	b.mu.Lock()
	defer b.mu.Unlock()
	var changed []*job
	for i := range ads {
		x := &ads[i]
		tag, at := adapters.Tag(x.Tag), ids{x.ClusterID, x.ProcID}
		j := b.jobs[tag]
		if j == nil || j.spec.batch != x.Batch || j.bound && j.at != at {
			if !past && (j == nil || !b.flying(j)) && b.batches[x.Batch] == nil {
				b.strays = append(b.strays, at)
			}
			continue
		}
		delete(open, tag)
		j.missing = 0
		if !j.bound {
			j.at, j.bound = at, true
		}
		if rec := b.batches[j.spec.batch]; rec != nil && rec.Log != "" {
			if l := b.logOf(rec.Log); l != nil {
				l.jobs[at] = j
			}
		}
		if j.end != nil {
			continue
		}
		before := j.evidence()
		if (past || a.settings.Spool || j.phase == adapters.Unknown || b.unsureOf(j)) && j.takeAd(x, past, a.settings) == remove {
			b.removals[at] = tag
		}
		if after := j.evidence(); after.Phase != before.Phase || after.Reason != before.Reason {
			changed = append(changed, j)
		}
	}
	b.tell(changed...)
}

// takeAd takes in what an ad tells of the job.
func (j *job) takeAd(x *ad, past bool, s *Settings) consequence {
	if x.ExecutingAt > 0 {
		j.started = time.Unix(x.ExecutingAt, 0)
	}
	host := string(x.Host)
	if host == "" {
		host = string(x.LastHost)
	}
	if _, h, ok := strings.Cut(host, "@"); ok {
		j.host = h
	}
	if x.ResidentSet > 0 && x.ResidentSet < 1<<50 {
		j.usage.Memory = max(j.usage.Memory, int64(x.ResidentSet)<<10)
	}
	if cpu := x.UserCPU + x.SysCPU; cpu > 0 && cpu < 1e9 {
		j.usage.CPU = max(j.usage.CPU, time.Duration(float64(cpu)*float64(time.Second)))
	}
	at := time.Now()
	if x.Completed > 0 {
		at = time.Unix(x.Completed, 0)
	} else if x.Entered > 0 {
		at = time.Unix(x.Entered, 0)
	}
	switch {
	case past && (x.Status == 4 || x.Status == 3 && x.Completed > 0):
		status := ""
		if x.ExitCode != nil {
			status = strconv.Itoa(*x.ExitCode)
		}
		j.terminated(!x.ExitBySignal, status, strconv.Itoa(x.ExitSignal), at, s)
	case past:
		j.removed(string(x.RemoveReason), at, s)
	case x.Status == 1, x.Status == 2 && (x.ExecutingAt == 0 || x.ExecutingAt < x.StartedAt): // its files are on their way
		j.phase, j.reason = adapters.Queued, ""
	case x.Status == 2 || x.Status == 6:
		j.phase, j.reason = adapters.Running, ""
	case x.Status == 7:
		j.phase, j.reason = adapters.Suspended, ""
	case x.Status == 5:
		return j.held(x.HoldCode, x.HoldSub, string(x.HoldReason), s)
	}
	return told
}

// missing judges jobs of which neither the queue nor the history knows; true if some
// are still to be judged.
func (a *Adapter) missing(open map[adapters.Tag]bool) (left bool) {
	b := a.book
	b.mu.Lock()
	defer b.mu.Unlock()
	for tag := range open {
		j := b.jobs[tag]
		if j == nil || j.end != nil {
			continue
		}
		x := b.batches[j.spec.batch]
		if x != nil && x.Settled || j.bound {
			// It may be on its way from the one to the other.
			if j.missing++; j.missing < 4 {
				left = true
				continue
			}
			if own, _ := j.own(); own != nil {
				j.finish(*own)
			} else {
				j.finish(adapters.Evidence{
					Phase: adapters.Lost, NotRun: !a.settings.Transfer && j.neverRan(a.settings),
					Reason: "neither the queue of HTCondor nor its history knows of the job any more",
				})
			}
			b.tell(j)
			continue
		}
		// Its submission's answer was lost, and nothing came of it. Should it appear late,
		// nobody runs it.
		if !a.settings.Transfer {
			if never, err := j.dir.withdraw(); err != nil || !never {
				left = true
				continue
			}
		}
		if err := b.discard(tag); err != nil {
			left = true
		}
	}
	return left
}

// Find gives the handles of tags that are placed.
func (a *Adapter) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	b := a.book
	doubtful := func() (doubt bool, flights []chan struct{}) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, t := range tags {
			j := b.jobs[t]
			if j == nil || !b.doubtful(j) {
				continue
			}
			doubt = true
			if b.flying(j) {
				flights = append(flights, b.batches[j.spec.batch].done)
			}
		}
		return doubt, flights
	}
	doubt, flights := doubtful()
	for _, done := range flights {
		select {
		case <-done:
		case <-ctx.Done():
			return nil, fail.Errorf("condor.Find", fail.Unavailable, "", "a job is being submitted right now").Because(ctx.Err())
		}
	}
	if doubt && len(flights) > 0 {
		doubt, _ = doubtful()
	}
	if doubt {
		if err := a.audit(ctx); err != nil {
			return nil, fail.Errorf("condor.Find", fail.Unavailable, "", "HTCondor can't be asked what it has: %s", fail.Sentence(err)).Because(err)
		}
		if doubt, _ = doubtful(); doubt {
			return nil, fail.Errorf("condor.Find", fail.Unavailable, "", "it is not known yet what became of a submission")
		}
	}
	found := map[adapters.Tag]adapters.Handle{}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range tags {
		if b.jobs[t] != nil {
			found[t] = handle(t)
		}
	}
	return found, nil
}

// fetch gets the files of jobs that ended at a schedd that spools, and with them their
// ends.
func (a *Adapter) fetch(ctx context.Context, queue []ad) {
	for i := range queue {
		x := &queue[i]
		a.book.mu.Lock()
		j := a.book.jobs[adapters.Tag(x.Tag)]
		wanted := x.Status == 4 && j != nil && j.end == nil && j.bound && j.at == (ids{x.ClusterID, x.ProcID})
		var who as
		if wanted && a.site.root {
			if rec := a.book.batches[j.spec.batch]; rec != nil {
				if acc, err := lookupAccount(strconv.Itoa(rec.UID)); err == nil {
					who = as{acc.uid, acc.gid}
				}
			}
		}
		a.book.mu.Unlock()
		if !wanted {
			continue
		}
		ans, err := a.run(ctx, who, "", "condor_transfer_data", append(a.remote(), j.at.String())...)
		if err == nil && ans.code != 0 {
			err = complaint("condor_transfer_data", ans)
		}
		if err != nil {
			a.log.Warn("the files of a job can't be fetched yet", "tag", x.Tag, "error", err)
			continue
		}
		a.book.mu.Lock()
		if j.end == nil {
			j.takeAd(x, true, a.settings)
			a.book.tell(j)
		}
		a.book.mu.Unlock()
	}
}
