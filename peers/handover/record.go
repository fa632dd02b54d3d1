package handover

import (
	"bytes"
	"encoding/json"

	"github.com/portolan-project/portolan/internal/fail"
)

// MaxRecord bounds a record.
const MaxRecord = 64 << 10 // bytes

// Encode gives the record as bytes.
func (j *Job) Encode() ([]byte, error) {
	// Nothing is escaped that JSON does not ask for: what peers chose would take six times its
	// bytes, and the record be larger than Decode takes.
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(j); err != nil {
		return nil, fail.E("handover.Encode", fail.Internal, j.Key.String(), err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads a record back. Its first step, which Next wants at once, does what a restart
// needs: the deadlines that may have been promised since are taken for promised, and what
// was in progress is done again.
func Decode(b []byte) (*Job, error) {
	const op = "handover.Decode"
	if len(b) > MaxRecord {
		return nil, fail.Errorf(op, fail.Invalid, "", "a record has %d bytes at most, and this one has %d", MaxRecord, len(b))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	j := &Job{restored: true}
	if err := d.Decode(j); err != nil {
		return nil, fail.Errorf(op, fail.Invalid, "", "the record can't be read; restore it from a backup").Because(err)
	}
	if err := j.check(); err != nil {
		return nil, err
	}
	return j, nil
}

// check finds records that no step makes.
func (j *Job) check() error {
	bad := func(why string) error {
		return fail.Errorf("handover.Decode", fail.Invalid, j.Key.String(), "the record can't be right: %s; restore it from a backup", why)
	}
	if err := j.Key.Check(); err != nil {
		return err
	}
	if _, ok := transitions[j.Phase]; !ok || j.Phase == "" {
		return bad("its phase is none")
	}
	switch {
	case j.Phase == Given && (j.Gave == nil || j.Gave.Token != j.Token()):
		return bad("a peer has the job, and it is not told which")
	case j.Phase == Over && j.Result == nil:
		return bad("there is no result")
	case j.Phase == Released && j.Taken == nil:
		return bad("its giver is not told")
	case (j.Phase == Here || j.Phase == Stopping) && j.Attempts == 0:
		return bad("it has a place that was never made")
	}
	if t := j.Taken; t != nil {
		if t.Token.Check() != nil || checkDomain(t.From) != nil || t.Terms.Check() != nil {
			return bad("how it was handed over is not told")
		}
	}
	if g := j.Gave; g != nil {
		if g.Token.Check() != nil || checkDomain(g.To) != nil || g.Terms.Check() != nil {
			return bad("to whom it was handed over is not told")
		}
	}
	return nil
}
