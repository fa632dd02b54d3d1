package shell

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/portolan-project/portolan/adapters"
)

// What is kept on disk is versioned: a gateway must understand the jobs of the
// one before it, or say that it does not.
const recordVersion = 1

// block is the room of one record in a job's file, which begins with two of them.
const block = 4096

// maxReason bounds a sentence in a record, so that it fits its block even when
// every byte is escaped.
const maxReason = 600

// maxSpec bounds a spec in memory: the argument list and environment of a
// process are at most 6 MiB on Linux, which JSON may make six times as long.
const maxSpec = 48 << 20

// spec is what is to be run, with everything of JSDL resolved.
type spec struct {
	Version     int               `json:"version"`
	Tag         adapters.Tag      `json:"tag"`
	Owner       string            `json:"owner,omitzero"`
	Submitted   time.Time         `json:"submitted"`
	Boot        string            `json:"boot"` // of the machine, when it was submitted
	Executable  string            `json:"executable,omitzero"`
	Arguments   []string          `json:"arguments,omitzero"`
	Environment []string          `json:"environment,omitzero"`
	Directory   string            `json:"directory,omitzero"` // absolute, or below the job's work directory
	Input       string            `json:"input,omitzero"`
	Output      string            `json:"output,omitzero"`
	Error       string            `json:"error,omitzero"`
	Make        []string          `json:"make,omitzero"` // directories below the job's own
	Limits      map[string]uint64 `json:"limits,omitzero"`
	Need        int               `json:"need"`              // slots
	Shares      bool              `json:"shares,omitzero"`   // processor time by Need
	MemoryBy    string            `json:"memoryBy,omitzero"` // element that limits memory, if it is not MemoryLimit
	Account     *runAs            `json:"account,omitzero"`  // nil: the gateway's
	Ranks       *ranks            `json:"ranks,omitzero"`    // nil: one process
	Launcher    []string          `json:"launcher,omitzero"` // stands before the program
	HostFile    string            `json:"hostFile,omitzero"` // content of the launcher's list of hosts
	Umask       int               `json:"umask"`
	Grace       time.Duration     `json:"grace"`
	NotAfter    time.Time         `json:"notAfter,omitzero"` // the end of its lease, unless a file has a later one

	blind bool // planned from afar, with something that was not looked at
}

func parseSpec(data []byte) (*spec, error) {
	var s spec
	if len(data) > maxSpec {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), maxSpec)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if s.Version != recordVersion {
		return nil, fmt.Errorf("its version is %d; this gateway knows %d", s.Version, recordVersion)
	}
	if err := s.Tag.Validate(); err != nil {
		return nil, err
	}
	if r := s.Ranks; r != nil && (r.Count < 1 || r.Count > maxRanks || r.First < 0 || r.Size < r.First+r.Count) {
		return nil, errors.New("its ranks are out of range")
	}
	if s.Need < 1 || s.Need > maxSlots || s.Umask&^0o777 != 0 || s.Grace < 0 {
		return nil, errors.New("its numbers are out of range")
	}
	return &s, nil
}

// begun is the first block of a state: the intent to start, written before it.
type begun struct {
	Version    int       `json:"version"`
	Supervisor string    `json:"supervisor"`       // its socket's name; "" if nothing was to be started
	Process    int       `json:"process,omitzero"` // the supervisor's, for people
	Started    time.Time `json:"started"`
	Groups     []string  `json:"groups,omitzero"` // cgroups that hold the tree
}

// ended is the second block.
type ended struct {
	Version    int            `json:"version"`
	Phase      adapters.Phase `json:"phase"`
	ExitStatus *int           `json:"exitStatus,omitzero"`
	Signal     string         `json:"signal,omitzero"`
	Reason     string         `json:"reason,omitzero"`
	NotRun     bool           `json:"notRun,omitzero"`
	LeaseEnded bool           `json:"leaseEnded,omitzero"`
	Started    time.Time      `json:"started,omitzero"` // of the program, more exactly than begun
	Ended      time.Time      `json:"ended"`
}

// evidence makes evidence of an end.
func (e *ended) evidence(tag adapters.Tag) adapters.Evidence {
	return adapters.Evidence{
		Tag: tag, Handle: handleOf(tag), Phase: e.Phase, ExitStatus: e.ExitStatus, Signal: e.Signal,
		Reason: e.Reason, NotRun: e.NotRun, LeaseEnded: e.LeaseEnded, Started: e.Started, Ended: e.Ended,
	}
}

// encodeBlock writes a record as one line, filled up with zeros to a block.
func encodeBlock(record any) ([]byte, error) {
	data, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	if len(data) >= block {
		return nil, fmt.Errorf("a record of %d bytes does not fit its block", len(data))
	}
	out := make([]byte, block)
	copy(out, data)
	out[len(data)] = '\n'
	return out, nil
}

func decodeBlock(data []byte, record any) error {
	line, _, ok := bytes.Cut(data, []byte{'\n'})
	if !ok {
		return errors.New("the record is not whole")
	}
	return json.Unmarshal(line, record)
}

// blank reports whether there are only zeros.
func blank(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

// parseState reads the two blocks. A nil begun is one that was not written, or not whole;
// a nil ended means that no end is recorded.
func parseState(data []byte) (*begun, *ended) {
	var b *begun
	var e *ended
	first := begun{}
	if decodeBlock(data[:min(block, len(data))], &first) == nil && first.Version == recordVersion {
		b = &first
	}
	if len(data) > block {
		second := ended{}
		if decodeBlock(data[block:min(2*block, len(data))], &second) == nil && second.Version == recordVersion && second.Phase.Final() {
			e = &second
		}
	}
	return b, e
}

// clip bounds a sentence, at the edge of a character.
func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	cut := maxReason
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
