package boinc

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
)

// How jobs end. A job has exited only when the project found a result to be right.

// settleGood settles the jobs of a batch that have a canonical result, once their
// outputs are here.
func (a *Adapter) settleGood(ctx context.Context, b *batch, info batchInfo, good []*job, infos map[*job]*jobInfo) error {
	if len(good) == 0 {
		return nil
	}
	lacking, err := a.fetch(ctx, b, info, good, infos)
	if err != nil && !errors.Is(err, errLater) {
		return err
	}
	for _, j := range good {
		if lacking[j] {
			if err != nil {
				continue // its turn comes in a later round
			}
			// Clearly not there, by every way: files may be moved just now.
			if j.tries++; j.tries < maxTries {
				continue
			}
			f := &final{Phase: adapters.Lost, Reason: "the project accepted a result of the job, but its outputs are not there any more"}
			if err := a.settle(j, f); err != nil {
				return err
			}
			continue
		}
		if err := a.settle(j, a.exited(j, infos[j])); err != nil {
			return err
		}
	}
	return nil
}

// maxTries is how often outputs that are not there are looked for.
const maxTries = 3

// exited makes the end of a job of what its canonical result says.
func (a *Adapter) exited(j *job, i *jobInfo) *final {
	f := &final{
		Phase: adapters.Exited, CPU: time.Duration(i.cpu * float64(time.Second)),
		Attributes: map[string]string{"canonical_instance_id": strconv.FormatInt(i.canonical, 10), "workunit_id": strconv.FormatInt(i.id, 10)},
	}
	if j.record.Native {
		zero := 0 // a main program that exits otherwise has no canonical result
		f.Exit = &zero
		return f
	}
	data, err := readSmall(filepath.Join(a.outputDir(j.record.Tag), statusFile), maxStatus+1)
	e, ok := readStatus(data)
	if err != nil || !ok {
		f.Phase, f.Reason = adapters.Stopped, "the host's account of how the job ended can't be read: the application may not be the wrapper that runs job.sh"
		return f
	}
	a.times(j, e, f)
	switch {
	case e.notRun != "":
		f.Phase, f.NotRun, f.Reason = adapters.Stopped, true, j.record.whyNot(e.notRun)
	case e.limit != "":
		f.Phase, f.Reason = adapters.Stopped, j.record.limitSentence(e.limit)
	case e.signal != 0:
		f.Signal = unix.SignalName(unix.Signal(e.signal))
		if f.Signal == "" {
			f.Signal = "SIG" + strconv.Itoa(e.signal)
		}
	default:
		f.Exit = &e.exit
	}
	if len(e.truncated) > 0 {
		f.Attributes["truncated"] = strings.Join(e.truncated, ", ")
		note := fmt.Sprintf("of an output only the first %d bytes were kept (max_output)", a.settings.MaxOutput)
		if f.Reason == "" {
			f.Reason = note
		} else {
			f.Reason += "; " + note
		}
	}
	return f
}

// times takes over the times that the host told, if its clock can be right.
func (a *Adapter) times(j *job, e ending, f *final) {
	f.Start = j.started
	begin, end := time.Unix(e.started, 0), time.Unix(e.ended, 0)
	if e.started == 0 || e.ended == 0 || end.Before(begin) || begin.Before(j.batch.record.At.Add(-2*time.Second)) || end.After(time.Now().Add(2*time.Second)) {
		return
	}
	f.Start, f.End = begin, end
}

// whyNot is the sentence for a program that was not started.
func (r *jobRecord) whyNot(code string) string {
	s := func(element string) string { return strconv.Quote(r.Subjects[element]) }
	switch code {
	case "path":
		return "Executable: " + s("Executable") + " is in no directory of the PATH on the host"
	case "missing":
		return "Executable: " + s("Executable") + " does not exist on the host"
	case "directory":
		return "Executable: " + s("Executable") + " is a directory on the host"
	case "mode":
		return "Executable: " + s("Executable") + " is not executable on the host"
	case "format":
		return "Executable: " + s("Executable") + " is no program of the host's system, nor a text that begins with #!"
	case "interpreter":
		return "Executable: the interpreter that " + s("Executable") + " names after #! is not on the host"
	case "nodir", "dirfile", "dirclosed":
		return "WorkingDirectory: " + s("WorkingDirectory") + map[string]string{
			"nodir": " does not exist on the host", "dirfile": " is not a directory on the host", "dirclosed": " can't be entered on the host",
		}[code]
	case "noinput", "inputdir", "inputclosed":
		return "Input: " + s("Input") + map[string]string{
			"noinput": " does not exist on the host", "inputdir": " is a directory on the host", "inputclosed": " can't be read on the host",
		}[code]
	case "outdir", "outclosed":
		return "Output: " + s("Output") + " can't be written on the host"
	case "errdir", "errclosed":
		return "Error: " + s("Error") + " can't be written on the host"
	}
	return "the program could not be started on the host"
}

func (r *jobRecord) limitSentence(element string) string {
	n, unit := r.Subjects[element], ""
	switch element {
	case "WallTimeLimit", "CPUTimeLimit":
		unit = " seconds"
		if n == "1" {
			unit = " second"
		}
	case "FileSizeLimit":
		unit = " bytes"
	default:
		return "the job was ended by a limit"
	}
	return element + ": the job was ended at its limit of " + n + unit
}

// settleBad settles a job that has an error, or that was to be ended: once no host
// has it any more.
func (a *Adapter) settleBad(ctx context.Context, j *job, i *jobInfo) error {
	a.mu.Lock()
	intent, told := j.cancel, j.aborted
	a.mu.Unlock()
	if intent != nil && !told && i.canonical == 0 && !slices.Contains(i.errors, "cancelled") {
		return nil // the intent has still to be told
	}
	if !a.mayAsk() {
		return nil
	}
	list, err := a.c.queryJob(ctx, i.id)
	if err != nil && !gone(err) {
		return wrap("query_job", err, false)
	}
	if slices.ContainsFunc(list, func(x instance) bool { return x.state == "In progress" }) {
		return nil // a late result may still count; a host that was told to stop has not heard it
	}
	f := &final{
		Phase: adapters.Stopped, NotRun: neverStarted(list), CPU: time.Duration(i.cpu * float64(time.Second)),
		Attributes: map[string]string{"workunit_id": strconv.FormatInt(i.id, 10), "error_mask": strings.Join(i.errors, ", ")},
	}
	switch {
	case intent != nil && intent.Reason == "":
		f.Phase = adapters.Cancelled
	case intent != nil:
		f.Reason = intent.Reason
	case slices.Contains(i.errors, "cancelled"):
		f.Reason = "the project's staff, or another program with this account, cancelled the job"
	default:
		f.Reason = a.failure(ctx, j, i, list)
	}
	if !f.NotRun && f.Phase == adapters.Stopped {
		a.fetchEvidence(ctx, j, list)
	}
	return a.settle(j, f)
}

// neverStarted says that no host came as far as starting the program.
func neverStarted(list []instance) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(x instance) bool {
		switch x.state {
		case "Unsent", "Inactive", "Didn't need", "Couldn't send", "Error while downloading", "Not started by deadline - canceled":
			return false
		}
		return true
	})
}

// failure is the sentence for a job that failed.
func (a *Adapter) failure(ctx context.Context, j *job, i *jobInfo, list []instance) string {
	var parts []string
	seen := map[int64]bool{}
	for _, code := range i.exits {
		if !seen[code] {
			seen[code] = true
			parts = append(parts, exitSentence(code))
		}
	}
	if seen[exitChild] {
		if own, ok := a.trueExit(ctx, a.jobName(j.record.Tag)); ok {
			parts = append(parts, fmt.Sprintf("its own exit status was %d", own))
		}
	}
	for _, x := range list {
		switch x.state {
		case "Timed out - no response":
			parts = append(parts, "a host did not report by its deadline")
		case "Abandoned":
			parts = append(parts, "a host left the project")
		case "Validate error":
			parts = append(parts, "the project could not read a host's outputs")
		case "Completed, marked as invalid", "Completed, validation inconclusive":
			parts = append(parts, "hosts did not agree on a result")
		}
	}
	slices.Sort(parts[min(len(parts), len(seen)):])
	parts = slices.Compact(parts)
	for _, e := range i.errors {
		if s, ok := errorSentences[e]; ok {
			parts = append(parts, s)
		} else {
			parts = append(parts, short(e))
		}
	}
	return "the job failed at the project: " + strings.Join(parts, "; ")
}

var errorSentences = map[string]string{
	"couldnt_send_result":      "it could not be sent",
	"too_many_error_results":   "too many hosts failed at it",
	"too_many_success_results": "too many results came in without agreement",
	"too_many_total_results":   "it has had as many instances as it may",
	"no_canonical_result":      "no result was found to be right",
}

// exitChild is how a wrapper shows every failure of its program.
const exitChild = 195

// exitSentence explains an exit status of an instance (the reference's §8).
func exitSentence(code int64) string {
	switch code {
	case 0:
		return "an output file was missing or too large (exit status 0)"
	case exitChild:
		return "the wrapped program failed (exit status 195 stands for any failure of it)"
	case 196:
		return "it used more disk than asked for (IndividualDiskSpace; exit status 196)"
	case 197:
		return "it ran longer than its time limit (exit status 197)"
	case 198:
		return "it used more memory than the host's owner allows (exit status 198)"
	case 194, 203:
		return fmt.Sprintf("it was aborted on the host (exit status %d)", code)
	case 200:
		return "it was not started before its deadline (exit status 200)"
	case 202:
		return "it was aborted by the project (exit status 202)"
	case 193:
		return "its program was ended by a signal (exit status 193)"
	case 206:
		return "its program could not be started (exit status 206)"
	case -186:
		return "its input files could not be fetched or were damaged (exit status -186)"
	case -185:
		return "its program could not be started (exit status -185)"
	}
	if code < 0 {
		return fmt.Sprintf("the host's client failed (exit status %d)", code)
	}
	return fmt.Sprintf("its program failed (exit status %d)", code)
}

// appExit is a wrapper's line about its program.
var appExit = regexp.MustCompile(`app exit status: 0x([0-9a-fA-F]{1,8})`)

// trueExit digs the program's own exit status out of what its wrapper wrote, where
// the server can show that: older ones do, newer ones fail.
func (a *Adapter) trueExit(ctx context.Context, name string) (int64, bool) {
	a.mu.Lock()
	can := !a.noStderr
	a.mu.Unlock()
	if !can {
		return 0, false
	}
	text, err := a.c.queryStderr(ctx, name)
	if err != nil {
		if _, said := errors.AsType[*reported](err); !said && ctx.Err() == nil {
			a.mu.Lock()
			a.noStderr = true
			a.mu.Unlock()
		}
		return 0, false
	}
	all := appExit.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(all[len(all)-1][1], 16, 64)
	return n, err == nil
}
