package boinctest

import (
	"net/http"
	"os"
	"path"
	"regexp"
)

var physicalName = regexp.MustCompile(`^[A-Za-z0-9_.\- ]{1,255}$`)

// fileHandler is job_file.php.
func (c *call) fileHandler() {
	switch c.r.name {
	case "query_files", "upload_files":
	default:
		c.fail(-1, "bad command")
	}
	c.op = c.r.name
	c.start()
	c.login(nil)
	if c.op == "query_files" {
		c.queryFiles()
	} else {
		c.uploadFiles()
	}
}

func (c *call) names() []string {
	var names []string
	for _, n := range c.r.all("phys_name") {
		if !physicalName.MatchString(n.text) {
			c.fail(-1, "bad file name: "+n.text)
		}
		names = append(names, n.text)
	}
	return names
}

// associate notes that a batch needs a file, in a table that the stock schema lacks.
func (c *call) associate() {
	if c.r.num("batch_id") != 0 && !c.p.config.FileSchema {
		c.fatal("Table 'gw.batch_file_assoc' doesn't exist", "user/job_file.php(140): BoincBatchFileAssoc::insert()")
	}
}

func (c *call) queryFiles() {
	var absent []int
	for i, name := range c.names() {
		f := c.p.files[name]
		if f == nil {
			absent = append(absent, i)
			continue
		}
		if t := c.r.num("delete_time"); t > f.DeleteTime && c.r.has("delete_time") {
			f.DeleteTime = t // which is done, and then taken for a failure
			c.p.touch(f)
			c.fail(-1, "job_file->update() failed: ")
		}
		c.associate()
	}
	c.print("<absent_files>\n")
	for _, i := range absent {
		c.print("<file>%d</file>\n", i)
	}
	c.print("</absent_files>\n")
	c.end()
}

func (c *call) uploadFiles() {
	names := c.names()
	if len(names) != len(c.files) {
		c.fail(-1, "# of files doesn't match # of physical names")
	}
	for _, f := range c.files {
		if f.size > c.p.config.UploadMax {
			c.fail(-1, f.name+" upload failed because: The uploaded file exceeds upload_max_filesize of php.ini.")
		}
	}
	for i, name := range names {
		content := c.files[i].content
		sum := hexMD5(string(content))
		if old, err := c.p.read("download", name); err == nil && hexMD5(string(old)) != sum {
			c.fail(-1, "file immutability violation for "+name)
		}
		if c.p.write("download", name, content) != nil {
			c.fail(-1, "can't write to file "+c.p.shown("download", name))
		}
		if c.p.files[name] != nil {
			c.fatal("Duplicate entry '"+name+"' for key 'name'", "user/job_file.php(250): BoincJobFile::insert()")
		}
		f := &JobFile{Name: name, MD5: sum, Size: int64(len(content)), DeleteTime: c.r.num("delete_time")}
		c.p.files[name] = f
		c.p.touch(f)
		c.associate()
	}
	c.print("<success/>\n")
	c.end()
}

// RemoveFile removes an uploaded file, as the staff's cleaning program does.
func (p *Project) RemoveFile(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.files, name)
	_ = os.Remove(p.file("download", name))
}

// download gives clients an input file.
func (p *Project) download(w http.ResponseWriter, r *http.Request) {
	http.ServeFile(w, r, p.file("download", path.Base(r.URL.Path)))
}
