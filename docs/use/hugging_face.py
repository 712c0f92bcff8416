import torch

import ssm_edu.torch

for line in ssm_edu.torch.install():  # before transformers' models are imported
    print(line)

from transformers import MambaConfig, MambaForCausalLM  # noqa: E402

torch.manual_seed(0)
config = MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2)
model = MambaForCausalLM(config).eval()  # or .from_pretrained(…)
tokens = torch.randint(0, 100, (1, 20))

print(model(tokens).logits.shape)
print(model.generate(tokens, max_new_tokens=5, do_sample=False))
