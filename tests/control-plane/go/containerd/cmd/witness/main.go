// Command witness is what runs in the containers of tests. It prints what it sees as one line of JSON: its environment, its mounts, the
// files in /dev and its folders. Then it waits for a signal to end; with the argument `once` it ends at once.
package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// mount is one line of /proc/self/mountinfo.
type mount struct {
	Point   string   `json:"point"`
	Root    string   `json:"root"`
	Options []string `json:"options"`
}

func main() {
	// First, so that a signal that comes early is not lost.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	seen := struct {
		Environment map[string]string `json:"environment"`
		Mounts      []mount           `json:"mounts"`
		Devices     []string          `json:"devices"`
	}{environment(), mounts(), devices()}
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "once" {
		return
	}
	<-ends
}

func environment() map[string]string {
	all := map[string]string{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		all[name] = value
	}
	return all
}

func mounts() []mount {
	all := []mount{}
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 5 {
			all = append(all, mount{Point: fields[4], Root: fields[3], Options: strings.Split(fields[5], ",")})
		}
	}
	return all
}

func devices() []string {
	all := []string{}
	fs.WalkDir(os.DirFS("/dev"), ".", func(path string, entry fs.DirEntry, err error) error {
		// What cannot be read is not seen.
		if err == nil && !entry.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	return all
}
