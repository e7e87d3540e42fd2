package main

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	clientinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/resource"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// informers is a factory of informers that are never started: what they hold is put into them, and their handlers are called in the
// same breath. So a question waits for nothing, leaves nothing running, and is answered the same every time.
type informers struct {
	clientinformers.SharedInformerFactory
	client kubernetes.Interface
	byType map[reflect.Type]*informer
	// What they hold, in the order in which it was put in.
	held []runtime.Object
}

// informer is one of them.
type informer struct {
	cache.SharedIndexInformer
	handlers []cache.ResourceEventHandler
}

// registration is that of a handler, which has always seen everything.
type registration struct{}

func newInformers(client kubernetes.Interface) *informers {
	factory := clientinformers.NewSharedInformerFactory(client, 0)
	return &informers{SharedInformerFactory: factory, client: client, byType: map[reflect.Type]*informer{}}
}

// replace takes everything out and puts the objects in. Objects of a type that no plugin looks at are left out.
func (f *informers) replace(objects []runtime.Object) {
	for _, object := range f.held {
		i := f.byType[reflect.TypeOf(object)]
		must(i.GetIndexer().Delete(object))
		for _, handler := range i.handlers {
			handler.OnDelete(object)
		}
	}
	f.held = f.held[:0]
	for _, object := range objects {
		i, ok := f.byType[reflect.TypeOf(object)]
		if !ok {
			continue
		}
		must(i.GetIndexer().Add(object))
		for _, handler := range i.handlers {
			handler.OnAdd(object, false)
		}
		f.held = append(f.held, object)
	}
}

// must is for what cannot fail: objects of these types have metadata.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// InformerFor is what every typed informer of a group comes from.
func (f *informers) InformerFor(object runtime.Object, make internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	kind := reflect.TypeOf(object)
	if _, ok := f.byType[kind]; !ok {
		f.byType[kind] = &informer{SharedIndexInformer: make(f.client, 0)}
	}
	return f.byType[kind]
}

// The groups that plugins ask for; the embedded factory's would make informers of its own.

func (f *informers) Core() core.Interface             { return core.New(f, "", nil) }
func (f *informers) Resource() resource.Interface     { return resource.New(f, "", nil) }
func (f *informers) Scheduling() scheduling.Interface { return scheduling.New(f, "", nil) }
func (f *informers) Storage() storage.Interface       { return storage.New(f, "", nil) }

func (i *informer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(handler, cache.HandlerOptions{})
}

func (i *informer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, _ cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	i.handlers = append(i.handlers, handler)
	return registration{}, nil
}

func (i *informer) HasSynced() bool { return true }

func (registration) HasSynced() bool { return true }

func (r registration) HasSyncedChecker() cache.DoneChecker { return r }

func (registration) Name() string { return "put in by hand" }

func (registration) Done() <-chan struct{} { return done }

var done = func() <-chan struct{} {
	closed := make(chan struct{})
	close(closed)
	return closed
}()
