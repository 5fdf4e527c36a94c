/** Putting the workspace to sleep: ask, save what is open, wish, leave for its page. */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, showDialog } from '@jupyterlab/apputils';
import { Kernel } from '@jupyterlab/services';
import React from 'react';

import { saveAll, unsaved } from './leave';
import { WorkspaceModel } from './model';

/** Ask, and then put the workspace to sleep; the server behind this page freezes, so the browser leaves it. */
export async function sleep(
  app: JupyterFrontEnd,
  model: WorkspaceModel
): Promise<void> {
  const kernels = [...app.serviceManager.kernels.running()];
  const answer = await showDialog({
    title: `Put ${model.config.name} to sleep?`,
    body: <WhatHappens kernels={kernels} unsaved={unsaved(app).length} />,
    buttons: [
      Dialog.cancelButton(),
      Dialog.okButton({ label: 'Sleep now', className: 'tp-sleep-now' })
    ]
  });
  if (answer.button.accept) {
    await saveAll(app);
    await model.wish('asleep');
    window.location.assign(model.page);
  }
}

function WhatHappens(props: {
  kernels: Kernel.IModel[];
  unsaved: number;
}): JSX.Element {
  const { kernels, unsaved } = props;
  return (
    <div className="tp-what-happens">
      <strong>Kept</strong>
      <ul>
        <li>Your files and notebooks{unsaved > 0 && savedFirst(unsaved)}</li>
        <li>The packages that you installed</li>
        <li>Jobs go on without the workspace</li>
      </ul>
      <strong>Lost</strong>
      <ul>
        <li>
          Running kernels and their variables
          {kernels.length > 0 && ` (${counted(kernels.length, 'kernel')} now)`}
        </li>
        <li>Terminals and what runs in them</li>
      </ul>
      <p>CPU and memory go back to your tenant until you wake it.</p>
    </div>
  );
}

function savedFirst(count: number): string {
  return `; ${counted(count, 'open document')} will be saved first`;
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
