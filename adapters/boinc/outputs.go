package boinc

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Outputs are fetched as soon as a job is done, as a project may not keep them. A
// submitter can't tell beforehand where they are: in the upload hierarchy, or where
// an assimilator collected them. The first is tried first.

const outputsDir = "outputs"

func (a *Adapter) outputDir(tag adapters.Tag) string {
	return filepath.Join(a.dir, outputsDir, string(tag))
}

// places says which outputs of a job are wanted: by place in the output template,
// the name under which they are kept.
func (r *jobRecord) places() map[int]string {
	if !r.Native {
		return map[int]string{0: outFile, 1: errFile, 2: statusFile}
	}
	m := map[int]string{}
	if r.Stdout != nil {
		m[*r.Stdout] = outFile
	}
	if r.Stderr != nil {
		m[*r.Stderr] = errFile
	}
	return m
}

// complete says that the outputs that a job can't do without are here.
func (a *Adapter) complete(j *job) bool {
	if len(j.record.places()) == 0 {
		return true
	}
	name := statusFile
	if j.record.Native {
		name = ".whole"
	}
	_, err := os.Stat(filepath.Join(a.outputDir(j.record.Tag), name))
	return err == nil
}

// fetch gets the outputs of jobs that are done, and says of which there are none.
func (a *Adapter) fetch(ctx context.Context, b *batch, info batchInfo, good []*job, infos map[*job]*jobInfo) (lacking map[*job]bool, err error) {
	lacking = map[*job]bool{}
	byPrefix := map[string]*job{}
	for _, j := range good {
		if !a.complete(j) {
			lacking[j] = true
			byPrefix[a.jobName(j.record.Tag)] = j
		}
	}
	if len(lacking) == 0 {
		return lacking, nil
	}
	// The archive of a batch has the outputs of all its jobs that are done, those that
	// are here among them: it is worth its while when most of them are new.
	done := 0
	for _, i := range info.list {
		if i.canonical != 0 {
			done++
		}
	}
	together := len(lacking) > 3 && 2*len(lacking) >= done && !b.huge
	if together {
		data, err := a.c.batchZip(ctx, b.id, maxReply)
		if err != nil && !errors.Is(err, errNoOutput) {
			if ended(ctx, err) || notSent(err) {
				return lacking, wrap("get_output.php", err, false)
			}
			b.huge = true // or the server can't pack it: one by one
			a.log.Warn("the outputs of a batch can't be had together", "batch", b.record.Name, "error", bare(err))
		}
		if err == nil {
			if err := a.unpack(data, a.kept(byPrefix), lacking); err != nil {
				return lacking, err
			}
		}
	}
	one := 2*a.settings.MaxOutput + 1<<20
	for _, j := range good {
		if !lacking[j] {
			continue
		}
		if !a.mayAsk() {
			return lacking, errLater
		}
		data, err := a.c.jobZip(ctx, infos[j].id, min(one, maxReply))
		if errors.Is(err, errNoOutput) || err == nil && len(data) == 0 {
			break // moved away, and so are all others
		}
		if err != nil {
			return lacking, wrap("get_output.php", err, false)
		}
		if err := a.unpack(data, a.kept(map[string]*job{a.jobName(j.record.Tag): j}), lacking); err != nil {
			return lacking, err
		}
	}
	return lacking, a.fetchCollected(ctx, b, good, infos, lacking, byPrefix, together)
}

// fetchCollected gets what an assimilator collected.
func (a *Adapter) fetchCollected(ctx context.Context, b *batch, good []*job, infos map[*job]*jobInfo, lacking map[*job]bool, byPrefix map[string]*job, together bool) error {
	if together && len(lacking) > 3 {
		data, err := a.c.collectedZip(ctx, b.id, maxReply)
		if err != nil && !errors.Is(err, errNoOutput) {
			return wrap("get_output3.php", err, false)
		}
		if err == nil && len(data) > 0 {
			if err := a.unpack(data, collected(byPrefix), lacking); err != nil {
				return err
			}
		}
	}
	for _, j := range good {
		if !lacking[j] {
			continue
		}
		if !a.mayAsk() {
			return errLater
		}
		files := map[int][]byte{}
		for place := range j.record.places() {
			data, err := a.c.collectedFile(ctx, infos[j].canonical, place, a.settings.MaxOutput+maxStatus)
			if errors.Is(err, errNoOutput) {
				continue
			}
			if err != nil {
				return wrap("get_output3.php", err, false)
			}
			files[place] = data
		}
		if len(files) > 0 {
			if err := a.keep(j, files); err != nil {
				return err
			}
			if a.complete(j) {
				delete(lacking, j)
			}
		}
	}
	return nil
}

// physical is the name of an output in the upload hierarchy: instance, a random
// number, and the place in the output template.
var physical = regexp.MustCompile(`^(.+)_[0-9]+_r[0-9]+_([0-9]+)$`)

// namer reads the name of an archive's member: whose it is and its place.
type namer func(member string) (j *job, place int, ok bool)

func (a *Adapter) kept(byName map[string]*job) namer {
	return func(member string) (*job, int, bool) {
		m := physical.FindStringSubmatch(member)
		if m == nil {
			return nil, 0, false
		}
		n, err := strconv.Atoi(m[2])
		j := byName[m[1]]
		return j, n, err == nil && j != nil
	}
}

// collected reads names that an assimilator gave: job and the name in the job.
func collected(byName map[string]*job) namer {
	return func(member string) (*job, int, bool) {
		name, logical, ok := strings.Cut(member, "__file_")
		j := byName[name]
		if !ok || j == nil || j.record.Native {
			return nil, 0, false // of others the names are not known, only the places
		}
		for place, kept := range j.record.places() {
			if kept == logical {
				return j, place, true
			}
		}
		return nil, 0, false
	}
}

// unpack keeps what is wanted of an archive.
func (a *Adapter) unpack(data []byte, name namer, lacking map[*job]bool) error {
	found, err := members(data, name, lacking, a.settings.MaxOutput)
	if err != nil {
		return fail.Errorf("boinc.Output", fail.Unavailable, "", "the project sent a damaged archive: %v", err)
	}
	for j, files := range found {
		if err := a.keep(j, files); err != nil {
			return err
		}
		if a.complete(j) {
			delete(lacking, j)
		}
	}
	return nil
}

// members gives what is wanted of an archive, by job and place. The members'
// checksums are checked as they are read. An empty body is an archive of nothing.
func members(data []byte, name namer, lacking map[*job]bool, maxOutput int64) (map[*job]map[int][]byte, error) {
	found := map[*job]map[int][]byte{}
	if len(data) == 0 {
		return found, nil
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	for _, f := range z.File {
		j, place, ok := name(f.Name)
		if !ok || !lacking[j] {
			continue
		}
		if _, wanted := j.record.places()[place]; !wanted {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(io.LimitReader(r, maxOutput+maxStatus))
		if err != nil {
			return nil, err
		}
		if found[j] == nil {
			found[j] = map[int][]byte{}
		}
		found[j][place] = content
	}
	return found, nil
}

// keep writes a job's outputs down, that which says that they are whole last.
func (a *Adapter) keep(j *job, files map[int][]byte) error {
	dir := a.outputDir(j.record.Tag)
	bad := func(err error) error {
		return fail.Errorf("boinc.Output", fail.Unavailable, dir, "the outputs of a job can't be kept: %v", err).Because(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return bad(err)
	}
	write := func(name string, content []byte) error {
		tmp := filepath.Join(dir, name+".new")
		return errors.Join(os.WriteFile(tmp, content, 0o600), os.Rename(tmp, filepath.Join(dir, name)))
	}
	var last []byte
	for place, name := range j.record.places() {
		content, ok := files[place]
		switch {
		case !ok:
		case name == statusFile:
			last = content
		default:
			if err := write(name, content[:min(int64(len(content)), a.settings.MaxOutput)]); err != nil {
				return bad(err)
			}
		}
	}
	if j.record.Native {
		if err := write(".whole", nil); err != nil {
			return bad(err)
		}
		return nil
	}
	if last == nil {
		return nil
	}
	if err := write(statusFile, last); err != nil {
		return bad(err)
	}
	return nil
}

// fetchEvidence gets the streams of a failed job's last instance, as far as they are
// there: nothing depends on them.
func (a *Adapter) fetchEvidence(ctx context.Context, j *job, list []instance) {
	if len(list) == 0 || len(list[len(list)-1].sizes) == 0 {
		return
	}
	last := list[len(list)-1]
	files := map[int][]byte{}
	for n := range min(len(last.sizes), 2) { // of files that are missing the others shift: the first two are the streams
		data, err := a.c.resultFile(ctx, last.name, n, a.settings.MaxOutput+maxStatus)
		if err != nil {
			break
		}
		files[n] = data
	}
	if j.record.Native {
		if j.record.Stdout == nil || *j.record.Stdout != 0 {
			return // which is which can't be told
		}
	}
	if err := a.keep(j, files); err != nil {
		a.log.Warn("the outputs of a failed job can't be kept", "job", string(j.record.Tag), "error", err)
	}
}

func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// Output opens a stream of a job. There is none before its end: hosts upload what a
// job wrote when it has ended.
func (a *Adapter) Output(_ context.Context, h adapters.Handle, s adapters.Stream, offset int64) (io.ReadCloser, error) {
	p, err := parseHandle(h)
	if err != nil {
		return nil, err
	}
	name := outFile
	switch {
	case offset < 0 || s != adapters.Stdout && s != adapters.Stderr:
		return nil, fail.Errorf("boinc.Output", fail.Invalid, string(p.tag), "there is no stream %d from %d", s, offset)
	case s == adapters.Stderr:
		name = errFile
	}
	a.mu.Lock()
	known := a.jobs[p.tag] != nil
	a.mu.Unlock()
	if !known {
		return nil, unknownJob("boinc.Output", p.tag)
	}
	f, err := os.Open(filepath.Join(a.outputDir(p.tag), name))
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fail.Errorf("boinc.Output", fail.Unavailable, string(p.tag), "the output can't be read: %v", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, fail.E("boinc.Output", fail.Unavailable, string(p.tag), err)
	}
	return f, nil
}

func unknownJob(op string, tag adapters.Tag) error {
	return fail.Errorf(op, fail.NotFound, string(tag), "the site has no job %s, or has forgotten it", tag)
}

func (a *Adapter) removeOutputs(tag adapters.Tag) error {
	if err := os.RemoveAll(a.outputDir(tag)); err != nil {
		return fail.E("boinc.Forget", fail.Unavailable, string(tag), fmt.Errorf("removing outputs: %w", err))
	}
	return nil
}
