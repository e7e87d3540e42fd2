//go:build tools

// Package tools pins the kubelet that partita-cluster builds. It is a module of its own, so that what the kubelet needs beyond the other
// programs of Kubernetes changes nothing for them.
package tools

import _ "k8s.io/kubernetes/cmd/kubelet"
