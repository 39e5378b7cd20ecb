"""Training on Kubernetes: the TrainJob, its launcher, and what must hold on the cluster before it starts."""
