package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	resourceslicetracker "k8s.io/dynamic-resource-allocation/resourceslice/tracker"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	storagev1defaults "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	"k8s.io/kubernetes/pkg/scheduler/util/assumecache"
)

// Oracle is the default profile of kube-scheduler over a cluster that is replaced for every question. The plugins are made once: they see
// the cluster through informers and a snapshot of which only the content changes.
type Oracle struct {
	framework framework.Framework
	informers *informers
	snapshot  *snapshot
}

// snapshot lets plugins keep the lister that they were given.
type snapshot struct {
	*schedulercache.Snapshot
}

// NewOracle makes the plugins, over an empty cluster.
func NewOracle(ctx context.Context) (*Oracle, error) {
	metrics.Register()
	config, err := latest.Default()
	if err != nil {
		return nil, fmt.Errorf("the default configuration: %w", err)
	}
	client := fake.NewClientset()
	informers := newInformers(client)
	slices := informers.Resource().V1().ResourceSlices()
	tracker, err := resourceslicetracker.StartTracker(ctx, resourceslicetracker.Options{SliceInformer: slices})
	if err != nil {
		return nil, fmt.Errorf("the resource slices: %w", err)
	}
	claims := assumecache.NewAssumeCache(klog.FromContext(ctx), informers.Resource().V1().ResourceClaims().Informer(), "ResourceClaim", "", nil)
	current := &snapshot{schedulercache.NewEmptySnapshot()}
	made, err := frameworkruntime.NewFramework(ctx, plugins.NewInTreeRegistry(), &config.Profiles[0],
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(informers),
		frameworkruntime.WithSnapshotSharedLister(current),
		frameworkruntime.WithMutableSnapshotLister(current),
		frameworkruntime.WithSharedDRAManager(dynamicresources.NewDRAManager(ctx, claims, tracker, informers)),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(informers.Storage().V1().CSINodes().Lister())),
		frameworkruntime.WithPodGroupManager(schedulercache.New(ctx, nil, false, false)),
		frameworkruntime.WithMetricsRecorder(metrics.NewMetricsAsyncRecorder(1000, time.Minute, ctx.Done())),
	)
	if err != nil {
		return nil, fmt.Errorf("the plugins: %w", err)
	}
	return &Oracle{framework: made, informers: informers, snapshot: current}, nil
}

// Ask runs PreFilter and Filter of every plugin, as kube-scheduler does in a scheduling cycle.
func (o *Oracle) Ask(ctx context.Context, question *Case) (*Answer, error) {
	setDefaults(question)
	o.show(question)
	answer := &Answer{Feasible: []string{}, Reasons: map[string][]string{}}
	state := framework.NewCycleState()
	narrowed, status, narrowing := o.framework.RunPreFilterPlugins(ctx, state, question.Pod)
	if !status.IsSuccess() && !status.IsRejected() {
		return nil, fmt.Errorf("%s", status.Message())
	}
	nodes, err := o.snapshot.NodeInfos().List()
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		name := node.Node().Name
		switch {
		case status.IsRejected():
			answer.Reasons[name] = status.Reasons()
		case !narrowed.AllNodes() && !narrowed.NodeNames.Has(name):
			answer.Reasons[name] = []string{fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", sorted(narrowing.UnsortedList()))}
		default:
			status := o.framework.RunFilterPlugins(ctx, state, question.Pod, node)
			switch {
			case status.IsSuccess():
				answer.Feasible = append(answer.Feasible, name)
			case status.Code() == fwk.Error:
				return nil, fmt.Errorf("%s", status.Message())
			default:
				answer.Reasons[name] = status.Reasons()
			}
		}
	}
	slices.Sort(answer.Feasible)
	return answer, nil
}

// show replaces the cluster that the plugins see.
func (o *Oracle) show(question *Case) {
	names := map[string]bool{}
	for _, node := range question.Nodes {
		names[node.Name] = true
	}
	// What kube-scheduler's own cache holds: no pod that has ended, none that waits.
	counts := func(pod *v1.Pod) bool {
		return names[pod.Spec.NodeName] && pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed
	}
	bound := slices.DeleteFunc(slices.Clone(question.Pods), func(pod *v1.Pod) bool { return !counts(pod) })
	o.snapshot.Snapshot = schedulercache.NewSnapshot(bound, question.Nodes)
	var objects []runtime.Object
	for _, node := range question.Nodes {
		objects = append(objects, node)
	}
	for _, namespace := range question.Namespaces {
		objects = append(objects, namespace)
	}
	for _, pod := range append(question.Pods, question.Pod) {
		objects = append(objects, pod)
	}
	for _, claim := range question.Claims {
		objects = append(objects, claim)
	}
	for _, volume := range question.Volumes {
		objects = append(objects, volume)
	}
	for _, class := range question.StorageClasses {
		objects = append(objects, class)
	}
	o.informers.replace(objects)
}

// setDefaults fills in what the API server would have.
func setDefaults(question *Case) {
	namespaced := func(meta *metav1.ObjectMeta) {
		if meta.Namespace == "" {
			meta.Namespace = metav1.NamespaceDefault
		}
	}
	for _, pod := range append(question.Pods, question.Pod) {
		namespaced(&pod.ObjectMeta)
		corev1defaults.SetObjectDefaults_Pod(pod)
	}
	for _, node := range question.Nodes {
		corev1defaults.SetObjectDefaults_Node(node)
	}
	for _, claim := range question.Claims {
		namespaced(&claim.ObjectMeta)
		corev1defaults.SetObjectDefaults_PersistentVolumeClaim(claim)
	}
	for _, volume := range question.Volumes {
		corev1defaults.SetObjectDefaults_PersistentVolume(volume)
	}
	for _, class := range question.StorageClasses {
		storagev1defaults.SetObjectDefaults_StorageClass(class)
	}
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
