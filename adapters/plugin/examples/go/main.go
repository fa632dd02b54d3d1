// Command queue is a Portolan adapter as a program of its own: a small batch queue
// on this machine, and a pattern for adapters in Go.
//
// Each job is a directory below the site's. A supervisor, which is this same program
// in another role, runs the job and outlives the plug-in, which can be killed at any
// time: what is in the directories is the truth. Settings: slots, the number of jobs
// at once.
package main

import (
	"os"

	"github.com/portolan-project/portolan/adapters/plugin"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "supervise" {
		supervise(os.Args[2])
		return
	}
	plugin.Serve(open)
}
