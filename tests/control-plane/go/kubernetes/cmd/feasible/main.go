// Feasible answers where a pod may go, with kube-scheduler's own filter plugins: an oracle for tests.
//
// It reads one JSON object a line from standard input, a cluster and a pod, and writes one a line to standard output: the nodes that
// every filter of the default profile lets through, and what the filters say of the others. A line that cannot be answered gets
// {"error": ...}. It needs no cluster, no files and no network.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/klog/v2"
)

// Case is a question. The pods are those of the cluster; only bound ones that have not ended count.
type Case struct {
	Nodes          []*v1.Node                  `json:"nodes"`
	Namespaces     []*v1.Namespace             `json:"namespaces"`
	Pods           []*v1.Pod                   `json:"pods"`
	Claims         []*v1.PersistentVolumeClaim `json:"pvcs"`
	Volumes        []*v1.PersistentVolume      `json:"pvs"`
	StorageClasses []*storagev1.StorageClass   `json:"storageclasses"`
	Pod            *v1.Pod                     `json:"pod"`
}

// Answer names the feasible nodes, sorted, and the reasons of the others.
type Answer struct {
	Feasible []string            `json:"feasible"`
	Reasons  map[string][]string `json:"reasons"`
}

// Refusal says why there is no answer.
type Refusal struct {
	Error string `json:"error"`
}

func main() {
	// The plugins log what an operator would want to know of a real cluster.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	if err := run(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "feasible:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, questions io.Reader, answers io.Writer) error {
	oracle, err := NewOracle(ctx)
	if err != nil {
		return err
	}
	lines := bufio.NewReader(questions)
	// One line for each value, written at once.
	encoder := json.NewEncoder(answers)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			if err := encoder.Encode(reply(ctx, oracle, line)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func reply(ctx context.Context, oracle *Oracle, line []byte) any {
	var question Case
	if err := json.Unmarshal(line, &question); err != nil {
		return Refusal{Error: fmt.Sprintf("the line is no case: %v", err)}
	}
	if question.Pod == nil {
		return Refusal{Error: "the case has no pod"}
	}
	answer, err := oracle.Ask(ctx, &question)
	if err != nil {
		return Refusal{Error: err.Error()}
	}
	return answer
}
