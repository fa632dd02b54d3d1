package main

import (
	"os"

	"github.com/portolan-project/portolan/internal/testbed"
)

func init() {
	managers["slurm"] = manager{
		up: func(dir string) ([]string, error) {
			root := os.Getuid() == 0
			return testbed.UpSlurm(dir, testbed.SlurmOptions{Nodes: 4, DBD: true, REST: root, Cgroup: root && testbed.MemoryController()})
		},
		down: testbed.DownSlurm,
		mark: "slurm.conf",
	}
}
