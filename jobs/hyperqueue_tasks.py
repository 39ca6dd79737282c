"""hyperqueue_tasks.py queue.json SERVER_DIRECTORY [phase4_batch options]: one HyperQueue task for each open model of the queue, with --failed-only
for each failed one; a server and two workers of one core on this machine."""
import os
import subprocess
import sys

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

queue, directory, *options = sys.argv[1:]
which = "failed" if "--failed-only" in options else "open"
listed = subprocess.run(["phase4_batch", "--list", which, queue], check=True, capture_output=True, text=True).stdout.strip()
print("tasks:", listed or "none")
if listed:
    with LocalCluster(server_dir=directory) as cluster:
        for _ in range(2):
            cluster.start_worker(WorkerConfig(cores=1))
        client, job = cluster.client(), Job(max_fails=None, default_workdir=os.getcwd())
        for number in listed.split(","):
            job.program(["phase4_batch", "--quiet", "--task", number, *options, queue], name=f"model {number}",
                        stdout=f"{directory}/{number}.out", stderr=f"{directory}/{number}.err")
        submitted = client.submit(job)
        client.wait_for_jobs([submitted], raise_on_error=False)
        for task, failure in client.get_failed_tasks(submitted).items():
            print("task", task, "failed:", failure.error)
