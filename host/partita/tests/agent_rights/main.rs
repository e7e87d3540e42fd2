//! What deploy/ gives the node agents is enough for their work, and keeps each at its own node: on a real API server, with the pods that the
//! `DaemonSet` makes and the tokens that kubelets would fetch for them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod stage;

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod, Secret},
    events::v1::Event,
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use partita_kube::crd::GpuNode;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::stage::{AGENT, Deployed, OTHER, OWN, SCHEDULER, SYSTEM, event, events, gpu_nodes, object, refusal, status, until};

/// That RBAC lets `client` neither list nor read what is called so.
async fn unreadable<K>(api: Api<K>)
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    for answer in [api.list(&ListParams::default()).await.map(drop), api.get("any").await.map(drop)] {
        let said = refusal(answer);
        assert!(said.contains("is forbidden: User \"system:serviceaccount:kube-system:partita-agent\" cannot"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_run_where_nodes_were_given_to_partita_and_to_nobody_else() {
    let deployed = Deployed::start().await;
    let given = ("partita.dev/partitioning", "auto");
    deployed.nodes("plain", 1, &[]).await;
    deployed.nodes("plugin", 1, &[given, ("nvidia.com/gpu.deploy.device-plugin", "true")]).await;
    deployed.nodes("manager", 1, &[given, ("nvidia.com/gpu.deploy.mig-manager", "true")]).await;
    let kept_off = [("nvidia.com/gpu.deploy.device-plugin", "false"), ("nvidia.com/gpu.deploy.mig-manager", "false")];
    deployed.nodes("ours", 1, &[("partita.dev/partitioning", "off"), kept_off[0], kept_off[1]]).await;
    // Its pods bear taints that keep everybody else off, those of an administrator too.
    deployed.kubectl(&["taint", "nodes", OTHER, "nvidia.com/gpu=:NoSchedule", "maintenance=:NoExecute"]);

    let sets: Api<DaemonSet> = Api::namespaced(deployed.admin.clone(), SYSTEM);
    let wanted = || async {
        let set = sets.get(AGENT).await.unwrap();
        let seen = set.status.as_ref().is_some_and(|status| status.observed_generation == set.metadata.generation);
        set.status.filter(|_| seen).map(|status| status.desired_number_scheduled)
    };
    until("three agents are wanted", async || (wanted().await == Some(3)).then_some(())).await;
    let places: BTreeSet<String> = [OWN, OTHER, "ours-0"].map(str::to_owned).into();
    until("they are there", async || (deployed.agents().await.into_keys().collect::<BTreeSet<_>>() == places).then_some(())).await;

    // A node that NVIDIA's device plugin is given back to has no agent of ours any more.
    deployed.kubectl(&["label", "node", OTHER, "nvidia.com/gpu.deploy.device-plugin=true"]);
    until("its agent goes", async || (!deployed.agents().await.contains_key(OTHER)).then_some(())).await;
    assert_eq!(deployed.agents().await.into_keys().collect::<Vec<_>>(), [OWN, "ours-0"]);

    // What the container is told, and that it has no more than its comment says.
    let pod = deployed.agents().await.remove(OWN).unwrap().spec.unwrap();
    let [container] = pod.containers.as_slice() else { panic!("{:?}", pod.containers) };
    let arguments: Vec<&str> = container.args.iter().flatten().map(String::as_str).collect();
    assert_eq!(arguments, ["agent", "--node=$(NODE_NAME)", "--listen=0.0.0.0:9477", "--log=json"]);
    // That the program takes them: it reads what comes before `--help` first.
    let taken = std::process::Command::new(env!("CARGO_BIN_EXE_partita")).args(&arguments).arg("--help").output().unwrap();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let name = container.env.iter().flatten().find(|variable| variable.name == "NODE_NAME").unwrap();
    assert_eq!(name.value_from.as_ref().unwrap().field_ref.as_ref().unwrap().field_path, "spec.nodeName");
    let context = container.security_context.clone().unwrap();
    assert_eq!(
        (context.privileged, context.allow_privilege_escalation, context.read_only_root_filesystem),
        (None, Some(false), Some(true))
    );
    let capabilities = context.capabilities.unwrap();
    assert_eq!((capabilities.drop, capabilities.add), (Some(vec!["ALL".to_owned()]), Some(vec!["SYS_ADMIN".to_owned()])));
    assert_eq!((pod.host_pid, pod.host_network, pod.host_ipc), (Some(true), None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_the_gpu_node_of_its_node_and_nothing_else() {
    let deployed = Deployed::start().await;
    let agent = deployed.agent(Some(OWN)).await;
    deployed.guarded(&agent).await;
    let (own, how) = (gpu_nodes(&agent), PatchParams::apply(AGENT).force());

    // Its work: make the object, owned by the Node, report, say something about it.
    let node = Api::<Node>::all(agent.clone()).get(OWN).await.unwrap();
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": OWN, "uid": node.metadata.uid });
    let metadata = json!({ "name": OWN, "ownerReferences": [owner] });
    let made = Patch::Apply(json!({ "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "metadata": metadata, "spec": {} }));
    let early = refusal(own.patch(OWN, &how, &object(OWN, &json!({ "term": 1 }))).await);
    assert!(early.contains("the agent of node gpu-0 may not write the spec of GpuNode gpu-0"), "{early}");
    own.patch(OWN, &how, &made).await.unwrap();
    own.patch_status(OWN, &how, &status(OWN, 0)).await.unwrap();
    let said = events(&agent).create(&PostParams::default(), &event(OWN, "partita.dev/agent")).await.unwrap();
    let series = Patch::Merge(json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z" } }));
    events(&agent).patch(&said.name_any(), &PatchParams::default(), &series).await.unwrap();
    own.list(&ListParams::default().fields("metadata.name=gpu-0")).await.unwrap();

    // The scheduler wrote what it wants; the agent's next apply leaves that alone.
    let scheduler = deployed.cluster.client_for("system:serviceaccount:kube-system:partita-scheduler").await.unwrap();
    let wish = json!({ "term": 1, "generation": 7, "gpus": [{ "uuid": "GPU-0", "index": 0, "cut": "shares" }] });
    gpu_nodes(&scheduler).patch(OWN, &PatchParams::apply(SCHEDULER).force(), &object(OWN, &wish)).await.unwrap();
    let after = own.patch(OWN, &how, &made).await.unwrap();
    assert_eq!((after.spec.generation, after.spec.gpus.len()), (7, 1));
    let after = own.patch_status(OWN, &how, &status(OWN, 7)).await.unwrap();
    assert_eq!(after.status.unwrap().observed_generation, 7);

    // Who takes partita off a node waits for this word, as the README says.
    let condition =
        json!({ "type": "Ready", "status": "False", "reason": "Restored", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let restored = json!({ "observedTerm": 1, "observedGeneration": 7, "conditions": [condition] });
    let restored = json!({ "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": OWN }, "status": restored });
    own.patch_status(OWN, &how, &Patch::Apply(restored)).await.unwrap();
    let word = r#"--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=Restored"#;
    deployed.kubectl(&["wait", "gpunode", "--all", "--timeout=1m", word]);

    // Neither the wish nor another node's object is its to write, by whatever call.
    let spec = "the agent of node gpu-0 may not write the spec of GpuNode gpu-0, which is for the scheduler: apply it with an empty spec, and \
                report in its status";
    let merge = Patch::Merge(json!({ "spec": { "generation": 8 } }));
    for said in [
        refusal(own.patch(OWN, &how, &object(OWN, &json!({ "term": 1, "generation": 8 }))).await),
        refusal(own.patch(OWN, &PatchParams::default(), &merge).await),
    ] {
        assert!(said.contains(spec), "{said}");
    }
    let foreign = "the agent of node gpu-0 may not write GpuNode gpu-1: give it the name of its own node (--node, from the field \
                   spec.nodeName of its pod)";
    let said = refusal(own.patch(OTHER, &how, &object(OTHER, &json!({}))).await);
    assert!(said.contains(foreign), "{said}");
    let said = refusal(own.create(&PostParams::default(), &GpuNode::new(OTHER, partita_kube::crd::GpuNodeSpec::default())).await);
    assert!(said.contains(foreign), "{said}");
    let other = deployed.agent(Some(OTHER)).await;
    gpu_nodes(&other).patch(OTHER, &how, &object(OTHER, &json!({}))).await.unwrap();
    for said in [
        refusal(own.patch_status(OTHER, &how, &status(OTHER, 1)).await),
        refusal(own.patch(OTHER, &PatchParams::default(), &Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }))).await),
    ] {
        assert!(said.contains(foreign), "{said}");
    }
    events_of_others_are_refused(&deployed, &agent).await;
    rights_are_the_least(&deployed, &agent).await;

    // No agent deletes: the object goes with its Node.
    Api::<Node>::all(deployed.admin.clone()).delete(OWN, &DeleteParams::default()).await.unwrap();
    until("the GpuNode goes with its Node", async || gpu_nodes(&deployed.admin).get_opt(OWN).await.unwrap().is_none().then_some(())).await;
    assert!(gpu_nodes(&deployed.admin).get_opt(OTHER).await.unwrap().is_some());
}

async fn events_of_others_are_refused(deployed: &Deployed, agent: &Client) {
    let how = PostParams::default();
    let said = refusal(events(agent).create(&how, &event(OTHER, "partita.dev/agent")).await);
    assert!(said.contains("the agent of node gpu-0 may not write events about GpuNode gpu-1, only about GpuNode gpu-0"), "{said}");
    let mut about_node = event(OWN, "partita.dev/agent");
    about_node.regarding.as_mut().unwrap().kind = Some("Node".into());
    let said = refusal(events(agent).create(&how, &about_node).await);
    assert!(said.contains("may not write events about Node gpu-0, only about GpuNode gpu-0"), "{said}");
    let said = refusal(events(agent).create(&how, &event(OWN, "partita.dev/scheduler")).await);
    let name = "may write events as partita.dev/agent only: set reportingController so, and leave the events of others";
    assert!(said.contains(name), "{said}");
    // Nor is what others said about its node to be changed.
    let others = events(&deployed.admin).create(&how, &event(OWN, "partita.dev/scheduler")).await.unwrap();
    let series = Patch::Merge(json!({ "series": { "count": 9, "lastObservedTime": "2026-01-01T00:01:00.000000Z" } }));
    let said = refusal(events(agent).patch(&others.name_any(), &PatchParams::default(), &series).await);
    assert!(said.contains(name), "{said}");
    let elsewhere: Api<Event> = Api::namespaced(agent.clone(), SYSTEM);
    let said = refusal(elsewhere.create(&how, &event(OWN, "partita.dev/agent")).await);
    assert!(said.contains("cannot create resource \"events\""), "{said}");
}

async fn rights_are_the_least(deployed: &Deployed, agent: &Client) {
    unreadable(Api::<Pod>::all(agent.clone())).await;
    unreadable(Api::<Secret>::all(agent.clone())).await;
    unreadable(Api::<Secret>::namespaced(agent.clone(), SYSTEM)).await;
    let label = Patch::Merge(json!({ "metadata": { "labels": { "partita.dev/partitioning": "off" } } }));
    let said = refusal(Api::<Node>::all(agent.clone()).patch(OWN, &PatchParams::default(), &label).await);
    assert!(said.contains("cannot patch resource \"nodes\""), "{said}");
    let said = refusal(gpu_nodes(agent).delete(OWN, &DeleteParams::default()).await.map(drop));
    assert!(said.contains("cannot delete resource \"gpunodes\""), "{said}");

    // The policies hold when somebody is generous with rights: its own object may go then, no other may.
    let roles: Api<ClusterRole> = Api::all(deployed.admin.clone());
    let wide = [("partita.dev", "gpunodes"), ("events.k8s.io", "events"), ("", "events")].map(|(group, resource)| {
        let rule = json!({ "apiGroups": [group], "resources": [resource], "verbs": ["*"] });
        json!({ "op": "add", "path": "/rules/-", "value": rule })
    });
    let more: Patch<ClusterRole> = Patch::Json(serde_json::from_value(json!(wide)).unwrap());
    roles.patch(AGENT, &PatchParams::default(), &more).await.unwrap();
    let how = DeleteParams { dry_run: true, ..DeleteParams::default() };
    until("the agent may delete", async || gpu_nodes(agent).delete(OWN, &how).await.ok()).await;
    let said = refusal(gpu_nodes(agent).delete(OTHER, &DeleteParams::default()).await.map(drop));
    assert!(said.contains("the agent of node gpu-0 may not write GpuNode gpu-1"), "{said}");
    let said = refusal(
        gpu_nodes(agent).delete_collection(&DeleteParams::default(), &ListParams::default().fields("metadata.name=gpu-1")).await.map(drop),
    );
    assert!(said.contains("the agent of node gpu-0 may not write GpuNode gpu-1"), "{said}");

    // Events have an older form of the same object, of which more can be changed.
    let how = PostParams::default();
    let about_other = events(&deployed.admin).create(&how, &event(OTHER, "partita.dev/agent")).await.unwrap().name_any();
    let older: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(agent.clone(), "default");
    let taken = Patch::Merge(json!({ "involvedObject": { "name": OWN } }));
    for said in [
        refusal(events(agent).delete(&about_other, &DeleteParams::default()).await.map(drop)),
        refusal(older.patch(&about_other, &PatchParams::default(), &taken).await),
    ] {
        assert!(said.contains("the agent of node gpu-0 may not write events about GpuNode gpu-1"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_node_writes_nothing_and_who_is_no_agent_is_not_asked() {
    let deployed = Deployed::start().await;
    let agent = deployed.agent(Some(OWN)).await;
    deployed.guarded(&agent).await;
    let how = PatchParams::apply(AGENT).force();
    gpu_nodes(&agent).patch(OWN, &how, &object(OWN, &json!({}))).await.unwrap();

    // A token by hand, or an administrator in the agent's name: nobody knows of which node.
    let account = "system:serviceaccount:kube-system:partita-agent";
    let remedy = "run the agent in a pod, with the token that its kubelet gives it, on Kubernetes 1.30 or newer";
    for nobody in [deployed.agent(None).await, deployed.as_if(account).await] {
        gpu_nodes(&nobody).get(OWN).await.unwrap();
        for said in [
            refusal(gpu_nodes(&nobody).patch(OWN, &how, &object(OWN, &json!({}))).await),
            refusal(gpu_nodes(&nobody).patch_status(OWN, &how, &status(OWN, 0)).await),
        ] {
            let whole = format!("the token of {account} names no node, so it may not write GpuNode gpu-0: {remedy}");
            assert!(said.contains(&whole), "{said}");
        }
        let said = refusal(events(&nobody).create(&PostParams::default(), &event(OWN, "partita.dev/agent")).await);
        assert!(said.contains(&format!("the token of {account} names no node, so it may not write events: {remedy}")), "{said}");
    }

    // The scheduler writes the spec; the status it may not, and cannot even where it was given the right by mistake.
    let scheduler = deployed.cluster.client_for("system:serviceaccount:kube-system:partita-scheduler").await.unwrap();
    let its = PatchParams::apply(SCHEDULER).force();
    gpu_nodes(&scheduler).patch(OWN, &its, &object(OWN, &json!({ "term": 1, "generation": 1 }))).await.unwrap();
    let said = refusal(gpu_nodes(&scheduler).patch_status(OWN, &its, &status(OWN, 1)).await);
    assert!(said.contains("cannot patch resource \"gpunodes/status\""), "{said}");
    let agents_role =
        ["create", "clusterrolebinding", "mistake", "--clusterrole=partita-agent", "--serviceaccount=kube-system:partita-scheduler"];
    deployed.kubectl(&agents_role);
    let word = "the scheduler may not write the status of GpuNode gpu-0, which is the word of its node's agent: write its spec";
    let by_policy =
        async || Some(refusal(gpu_nodes(&scheduler).patch_status(OWN, &its, &status(OWN, 1)).await)).filter(|said| said.contains(word));
    until("the scheduler is refused by the policy", by_policy).await;

    // An administrator may do all of it.
    let (all, forced) = (gpu_nodes(&deployed.admin), PatchParams::apply("person").force());
    all.patch(OTHER, &forced, &object(OTHER, &json!({ "term": 1, "generation": 2 }))).await.unwrap();
    all.patch(OTHER, &forced, &object(OTHER, &json!({ "term": 1, "generation": 3 }))).await.unwrap();
    all.patch_status(OTHER, &forced, &status(OTHER, 3)).await.unwrap();
    events(&deployed.admin).create(&PostParams::default(), &event(OTHER, "anybody")).await.unwrap();
    all.delete(OTHER, &DeleteParams::default()).await.unwrap();
}
