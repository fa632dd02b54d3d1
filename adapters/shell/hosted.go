package shell

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// hostedJob is a job of a site of hosts that has not ended.
type hostedJob struct {
	tag       adapters.Tag
	request   hostJob
	wanted    wanted
	submitted time.Time
	plans     map[*host]planned
	avoid     map[*host]time.Time // hosts that could not take it for the moment
	refused   map[*host]string    // hosts that will not
	parts     []*hostPart         // nil: it waits
	verdict   *hostPart           // the first part that failed
	cancel    bool
	reason    string // why it waits
	over      bool
	notAfter  time.Time // the end of its lease, the latest that was told; zero: none
	lease     *time.Timer
	made      chan struct{} // closed once it is on disk, or will not be; nil: it is
}

// hostPart is what one host has of a job: all of it, or some of its processes.
type hostPart struct {
	Host      string `json:"host"`
	Need      int    `json:"need"` // slots
	Part      *part  `json:"part,omitzero"`
	Idle      bool   `json:"idle,omitzero"`      // only slots: a launcher on the first host does the rest
	Delivered bool   `json:"delivered,omitzero"` // the host has it

	host      *host // nil: the settings have it no more
	held      bool
	persisted bool
	evidence  adapters.Evidence
	news      int // how often the host told of it by itself
}

func newHostedJob(h hostJob) *hostedJob {
	return &hostedJob{
		tag: h.Tag, request: h, notAfter: h.NotAfter, plans: map[*host]planned{}, avoid: map[*host]time.Time{}, refused: map[*host]string{},
	}
}

// The files of a job in dirPlaced/TAG.
const (
	hostedJobFile    = "job"    // what is to be run
	hostedAtFile     = "at"     // where: written before a host hears of it
	hostedEndFile    = "end"    // its end
	hostedCancelFile = "cancel" // it is to be cancelled
	hostedOrderFile  = "order"  // and a stream's number: the order of lines of several hosts
)

type hostedRecord struct {
	Version   int       `json:"version"`
	Submitted time.Time `json:"submitted"`
	Job       hostJob   `json:"job"`
}

func (s *Hosts) path(tag adapters.Tag, name ...string) string {
	return filepath.Join(append([]string{s.dir, dirPlaced, string(tag)}, name...)...)
}

// write puts a job on disk, whole or not at all; false if the tag is taken.
func (s *Hosts) write(j *hostedJob) (bool, error) {
	data, err := json.Marshal(hostedRecord{Version: recordVersion, Submitted: j.submitted, Job: j.request})
	if err != nil {
		return false, err
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.dir, dirStaging), "place-")
	if err != nil {
		return false, err
	}
	undo := func(err error) (bool, error) { return false, errors.Join(err, os.RemoveAll(tmp)) }
	if err := replace(filepath.Join(tmp, hostedJobFile), data, !s.options.NoSync); err != nil {
		return undo(err)
	}
	if err := os.Rename(tmp, s.path(j.tag)); err != nil {
		if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
			return undo(nil)
		}
		return undo(err)
	}
	return true, nil
}

// assign writes down which hosts are to have a job, lastingly if a host is about to
// hear of it: it must never be given to another after that.
func (s *Hosts) assign(j *hostedJob, parts []*hostPart, lasting bool) error {
	data, err := json.Marshal(parts)
	if err != nil {
		return err
	}
	lasting = lasting && !s.options.NoSync
	if err := replace(s.path(j.tag, hostedAtFile), data, lasting); err != nil || !lasting {
		return err
	}
	dir, err := os.Open(s.path(j.tag))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// takeOver reads what the gateway before left. What a host has is asked when it is
// connected.
func (s *Hosts) takeOver() error {
	staging := filepath.Join(s.dir, dirStaging)
	if left, err := os.ReadDir(staging); err == nil {
		for _, e := range left {
			_ = clear(filepath.Join(staging, e.Name()))
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, dirPlaced))
	if err != nil {
		return openError(s.dir, err)
	}
	s.mu.Lock() // a lease that is over ends its job as soon as that is watched
	defer s.mu.Unlock()
	for _, e := range entries {
		tag := adapters.Tag(e.Name())
		if tag.Validate() != nil {
			continue
		}
		if _, err := os.Lstat(s.path(tag, hostedEndFile)); err == nil {
			continue
		}
		j, err := s.read(tag)
		if err != nil {
			s.log().Error("a job's record can't be read", "tag", tag, "error", err)
			continue
		}
		s.active[tag] = j
		s.watchLease(j)
		if len(j.parts) == 0 {
			if j.cancel {
				s.finish(j, adapters.Evidence{Phase: adapters.Cancelled, NotRun: true, Ended: time.Now()})
				continue
			}
			s.queue = append(s.queue, j)
		}
		for _, p := range j.parts {
			s.hold(p)
		}
	}
	slices.SortStableFunc(s.queue, func(x, y *hostedJob) int { return x.submitted.Compare(y.submitted) })
	return nil
}

func (s *Hosts) read(tag adapters.Tag) (*hostedJob, error) {
	data, err := readBounded(s.path(tag, hostedJobFile), maxFrame)
	if err != nil {
		return nil, err
	}
	var r hostedRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion || r.Job.Tag != tag {
		return nil, fmt.Errorf("it is of version %d for the tag %q", r.Version, r.Job.Tag)
	}
	j := newHostedJob(r.Job)
	j.submitted, j.notAfter = r.Submitted, s.hostedLease(&r.Job)
	if j.wanted, err = j.request.wanted(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(s.path(tag, hostedCancelFile)); err == nil {
		j.cancel = true
	}
	if j.parts, err = s.assigned(tag); err != nil {
		return nil, err
	}
	return j, nil
}

// assigned reads which hosts have a job.
func (s *Hosts) assigned(tag adapters.Tag) ([]*hostPart, error) {
	data, err := readBounded(s.path(tag, hostedAtFile), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var parts []*hostPart
	if err := json.Unmarshal(data, &parts); err != nil {
		return nil, err
	}
	for _, p := range parts {
		p.persisted = true
		for _, h := range s.hosts {
			if h.Name == p.Host {
				p.host = h
			}
		}
	}
	return parts, nil
}

// recorded gives the evidence of what is on disk.
func (s *Hosts) recorded(tag adapters.Tag) adapters.Evidence {
	base := adapters.Evidence{Tag: tag, Handle: handleOf(tag)}
	data, err := readBounded(s.path(tag, hostedEndFile), 1<<20)
	if err == nil {
		var e hostedEvidence
		if err = json.Unmarshal(data, &e); err == nil && e.Phase.Final() {
			return e.evidence()
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(s.path(tag)); errors.Is(err, fs.ErrNotExist) {
			base.Phase, base.Reason = adapters.Lost, "the site has no such job, or has forgotten it"
			return base
		}
	}
	base.Err = fail.Errorf("shell.Status", fail.Unavailable, string(tag), "the job's record can't be read: %s", why(err)).Because(err)
	return base
}

// What follows is called with mu held.

func (s *Hosts) hold(p *hostPart) {
	if !p.held && p.host != nil {
		p.held = true
		p.host.used += p.Need
	}
}

func (s *Hosts) release(p *hostPart) {
	if p.held {
		p.held = false
		p.host.used -= p.Need
	}
}

// finish takes an end for known.
func (s *Hosts) finish(j *hostedJob, e adapters.Evidence) {
	if j.over || s.active[j.tag] != j {
		return
	}
	j.over = true
	if j.lease != nil {
		j.lease.Stop()
	}
	e.Tag, e.Handle = j.tag, handleOf(j.tag)
	data, err := json.Marshal(hosted(e))
	if err == nil {
		err = replace(s.path(j.tag, hostedEndFile), data, false)
	}
	if err != nil {
		// The hosts know it and the next gateway asks them again; this one remembers.
		s.log().Error("the end of a job can't be recorded", "tag", j.tag, "error", err)
	}
	if i := slices.Index(s.queue, j); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	for _, p := range j.parts {
		s.release(p)
	}
	if err == nil {
		delete(s.active, j.tag)
	} else {
		j.parts = []*hostPart{{evidence: e, Delivered: true, persisted: true}}
	}
	s.feed.Publish(e)
}

// view gives the evidence of a job that has not ended, from that of its parts.
func (j *hostedJob) view() adapters.Evidence {
	e := adapters.Evidence{Tag: j.tag, Handle: handleOf(j.tag), Phase: adapters.Queued, Reason: j.reason}
	for _, p := range j.parts {
		switch {
		case p.evidence.Phase.Final():
			if e.Phase == adapters.Queued && len(j.parts) > 1 {
				e.Phase = adapters.Running
			}
		case p.host == nil || !p.host.up:
			e.Phase, e.Reason = adapters.Unknown, ""
			e.Err = fail.Errorf("shell.Status", fail.Unavailable, string(j.tag), "the host %s can't be reached at present", p.Host)
			return e
		case p.evidence.Phase == adapters.Running || p.evidence.Phase == adapters.Suspended:
			e.Phase = p.evidence.Phase
		case p.evidence.Reason != "":
			e.Reason = p.evidence.Reason
		}
		if e.Started.IsZero() || !p.evidence.Started.IsZero() && p.evidence.Started.Before(e.Started) {
			e.Started = p.evidence.Started
		}
		e.Hosts = append(e.Hosts, p.Host)
		e.Usage.CPU += p.evidence.Usage.CPU
		e.Usage.Memory += p.evidence.Usage.Memory
	}
	return e
}

// end gives the end of a job, once all of its parts have ended.
func (j *hostedJob) end() (adapters.Evidence, bool) {
	var e adapters.Evidence
	notRun := true
	for i, p := range j.parts {
		if p.Idle {
			continue
		}
		if !p.evidence.Phase.Final() {
			return e, false
		}
		started, ended := e.Started, e.Ended
		if i == 0 {
			e = p.evidence
			started, ended = e.Started, e.Ended
		}
		if started.IsZero() || !p.evidence.Started.IsZero() && p.evidence.Started.Before(started) {
			started = p.evidence.Started
		}
		if p.evidence.Ended.After(ended) {
			ended = p.evidence.Ended
		}
		e.Started, e.Ended = started, ended
		notRun = notRun && p.evidence.NotRun
	}
	started, ended := e.Started, e.Ended
	if j.verdict != nil {
		e = j.verdict.evidence
	}
	e.Started, e.Ended, e.NotRun, e.Hosts = started, ended, notRun, nil
	for _, p := range j.parts {
		e.Hosts = append(e.Hosts, p.Host)
	}
	return e, true
}
